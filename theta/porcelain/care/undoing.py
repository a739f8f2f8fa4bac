"""``theta undo``: the last command of theta is taken back, in refs, index and worktree.

Undoing is allowed as long as all is as the command left it (:mod:`undo_notes`).  A file that the command
wrote, if it still has the content that the command gave it, is brought to the version of the old index.  Any
other file is left alone: ``theta commit -a`` is undone without touching the files.

The new index is written beside the old one, refs move, the index gets its name, then files are written: a
full disk is met before refs move, or when index and refs are as they should be.  The note tells before that
an undo has begun, and has all that it needs; so one that was killed, or failed, is completed by the next.
In the end a note of the undo itself replaces it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from theta import _fs
from theta.errors import MissingObjectsError, NotFoundError, ThetaError, UsageError, WouldOverwriteError
from theta.git import in_progress
from theta.git.backends.index_entries import Entry, Staged
from theta.git.repository import Repository
from theta.porcelain.care import undo_notes
from theta.porcelain.care.undo_notes import HeadState
from theta.porcelain.workspace import agreement, worktree
from theta.porcelain.workspace.session import Change, Session
from theta.progress import Progress

_FILES: Final = (0o100644, 0o100755, 0o120000)
_EARLIER: Final = "'git reflog' lists earlier commits, 'theta reset --keep COMMIT' goes back to one"
_COMMITTING: Final = ("commit", "merge", "cherry-pick", "revert", "rebase", "pull")


@dataclass(frozen=True)
class Undone:
    """The result of an undo.

    Attributes:
        line: the command that was undone.
        refs: name -> (old id, new id) of the refs that moved; "" for a ref that is not there.
        files: the files of the worktree that were brought to their version before the command.
        left: the files that the command wrote and that stay, as something else is there now.
        losing: the command threw away what was not committed, which nothing brings back.
    """

    line: str
    refs: Mapping[str, tuple[str, str]]
    files: Sequence[str]
    left: Sequence[str]
    losing: bool


@dataclass(frozen=True)
class _Files:
    """Files that a command wrote: to be written, changed since, and with something else in their place."""

    due: list[str]
    changed: list[str]
    left: list[str]


def undo(session: Session, progress: Progress | None = None) -> Undone:
    """Undo the last command of theta.

    Raises :class:`NotFoundError` without one, :class:`UsageError` if something changed since or is in
    progress, :class:`WouldOverwriteError` if a file that it wrote was changed since.
    """
    with session.journal.exclusive():
        repo = session.repo
        note = _read(repo)
        _check(session, note)
        is_new = _is_untouched(repo, note)
        if is_new:
            note = _begin(session, note, progress)
        now, old = _indexes(repo, note)
        with session.change() as change:
            _stage(change, now, old)
            change.index.prepare()  # a full disk is met before a ref moves
            _move_refs(repo, note)
        files = _files(session, note["begun"]["files"], now, old)
        left = [*files.changed, *files.left]
        if not is_new:
            left = _not_done(session, left, old, progress)
        _put(session, files.due, old)
        fresh = session.again()
        agreement.fill(fresh, progress)
        worktree.refresh(fresh, progress)
        done = [path for path in note["begun"]["files"] if path not in left]
        undo_notes.write(repo, _reversed(repo, note, done))
        moved = {name: (new, was) for name, (was, new) in note["refs"].items() if was != new}
        left = sorted({*left, *note["begun"]["left"]})
        return Undone(note["line"], moved, done, left, bool(note["losing"]))


def _read(repo: Repository) -> dict[str, Any]:
    note = undo_notes.read(repo)
    if "line" not in note:
        raise NotFoundError(
            "no command of theta is known here that could be undone",
            hint=f"in a repository without checkpoints git does all; {_EARLIER}",
        )
    if "refs" not in note or "files" not in note:
        reason = note.get("reason", "nothing keeps what files were before it")
        raise UsageError(
            f"'{note['line']}' cannot be undone: {reason}",
            hint=_EARLIER,
        )
    return note


def _check(session: Session, note: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` unless all is as the command, or an undo that was killed, left it."""
    repo, line, first = session.repo, note["line"], 0 if "begun" in note else 1
    if name := in_progress.current(repo).name:
        raise UsageError(f"a {name} is in progress", hint=f"'theta {name} --abort' takes it back")
    if session.index.conflicts:
        raise UsageError("the index has conflicts", hint="'theta resolve' settles them")
    refs = undo_notes.refs(repo)
    moved = [name for name, states in note["refs"].items() if refs.get(name, "") not in states[first:]]
    if moved or list(undo_notes.head(repo)) not in note["head"][first:]:
        raise UsageError(
            f"{moved[0] if moved else 'HEAD'} moved since '{line}', so that is not undone",
            hint=_EARLIER,
        )
    _check_worktrees(repo, note)
    kept = undo_notes.digest(repo, undo_notes.index_of(repo, note["kept"]))
    if (
        kept != note["indexes"][0]
        or undo_notes.digest(repo, repo.index_path) not in note["indexes"][first:]
        or ("begun" in note and undo_notes.digest(repo, undo_notes.other_index(repo)) != note["indexes"][1])
    ):
        raise UsageError(
            f"the index changed since '{line}', so that is not undone",
            hint="'theta restore --staged' takes changes out",
        )


def _check_worktrees(repo: Repository, note: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` if another worktree uses a branch that would move, or be at HEAD here."""
    old, new = note["head"]
    moving = [name for name, (was, now) in note["refs"].items() if was != now]
    used = undo_notes.elsewhere(repo) & {*moving, *([old[0]] if old != new else [])}
    if used:
        raise UsageError(
            f"{min(used)} is checked out in another worktree, so '{note['line']}' is not undone",
            hint="'git worktree list' shows where",
        )


def _is_untouched(repo: Repository, note: Mapping[str, Any]) -> bool:
    """Return whether no undo of the command has begun, or none of its steps was taken."""
    return "begun" not in note or (
        _are_at(repo, note, 1) and undo_notes.digest(repo, repo.index_path) == note["indexes"][1]
    )


def _are_at(repo: Repository, note: Mapping[str, Any], state: int) -> bool:
    """Return whether refs and HEAD are as before the command, state 0, or as after it, state 1."""
    refs = undo_notes.refs(repo)
    return list(undo_notes.head(repo)) == note["head"][state] and all(
        refs.get(name, "") == ids[state] for name, ids in note["refs"].items()
    )


def _begin(session: Session, note: Mapping[str, Any], progress: Progress | None) -> dict[str, Any]:
    """Give the index of now a second name, and note that the undo begins, and the files it will write."""
    repo = session.repo
    worktree.refresh(session, progress)
    repo.refresh_index()
    place = undo_notes.other_index(repo)
    _fs.remove(place)
    if repo.index_path.exists():
        _fs.link(repo.index_path, place)
    now, old = _indexes(repo, note)
    _check_staged(repo, note, _differing(now, old))
    _check_objects(session, [old[path] for path in _differing(now, old) if path in old])
    files = _files(session, note["files"], now, old)
    if files.changed:
        raise WouldOverwriteError(
            f"{files.changed[0]} was changed since the command", hint="commit it, or stash it, and undo again"
        )
    begun = {**note, "begun": {"files": files.due, "left": files.left}}
    undo_notes.write(repo, begun)
    return begun


def _indexes(repo: Repository, note: Mapping[str, Any]) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """Return the entries of the index after the command, and before it."""
    kept = undo_notes.index_of(repo, note["kept"])
    return _entries(repo, undo_notes.other_index(repo)), _entries(repo, kept)


def _differing(now: Mapping[str, Entry], old: Mapping[str, Entry]) -> list[str]:
    key = undo_notes.key
    return [path for path in sorted(now.keys() | old.keys()) if key(now.get(path)) != key(old.get(path))]


def _check_staged(repo: Repository, note: Mapping[str, Any], paths: Sequence[str]) -> None:
    """Raise :class:`UsageError` if others staged files while the command ran: what it staged is in HEAD."""
    is_moved = any(was != new for was, new in [note["head"], *note["refs"].values()])
    if not is_moved or note["line"].split()[1] not in _COMMITTING:
        return
    staged = {*repo.git().lines("diff-index", "--cached", "--name-only", "--no-renames", "-z", "HEAD")}
    if meanwhile := staged.intersection(paths):
        raise UsageError(
            f"{min(meanwhile)} was staged while '{note['line']}' ran, so that is not undone",
            hint="'theta restore --staged' takes changes out",
        )


def _check_objects(session: Session, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.mode in _FILES and not session.repo.obtains(entry.oid):
            raise MissingObjectsError(f"{entry.path}: its version before the command is not kept any more")


def _stage(change: Change, now: Mapping[str, Entry], old: Mapping[str, Entry]) -> None:
    """Bring the index to its old entries."""
    for path in _differing(now, old):
        entry = old.get(path)
        if entry is None:
            change.index.remove(path)
        else:
            change.index.put(Staged(path, entry.oid, entry.mode, entry.skip, None, entry.intended))


def _files(
    session: Session, paths: Sequence[str], now: Mapping[str, Entry], old: Mapping[str, Entry]
) -> _Files:
    """Sort the files that the command wrote by what is there now."""
    root, found = session.repo.worktree, _Files([], [], [])
    changed = _changed(session.repo, undo_notes.other_index(session.repo))
    for path in paths:
        entry, is_there = now.get(path) or old.get(path), undo_notes.stat(root, path) is not None
        if entry is None or entry.mode not in _FILES or not (is_there or path in old):
            continue
        if is_there != (path in now) or not undo_notes.is_reached(root, path):
            found.left.append(path)
        elif path in now and path in changed:
            found.changed.append(path)
        else:
            found.due.append(path)
    return found


def _changed(repo: Repository, index: Path) -> Collection[str]:
    """Return the files that are not known to be as in ``index``."""
    return set(repo.git(index=index).lines("diff-files", "-z", "--name-only"))


def _not_done(
    session: Session, paths: Sequence[str], old: Mapping[str, Entry], progress: Progress | None
) -> list[str]:
    """Return those of ``paths`` that an undo which was killed did not bring to their old version."""
    fresh = session.again()
    worktree.refresh(fresh, progress)
    fresh.repo.refresh_index()
    changed = _changed(fresh.repo, fresh.repo.index_path)
    return [path for path in paths if path not in old or path in changed]


def _put(session: Session, files: Sequence[str], old: Mapping[str, Entry]) -> None:
    """Bring ``files`` to their versions in the index, which is the old one now."""
    root = session.repo.worktree
    for path in files:
        if path not in old:
            _fs.remove(root / path)
            for parent in Path(path).parents[:-1]:
                _fs.remove_empty_dir(root / parent)
    names = "".join(f"{path}\0" for path in files if path in old).encode("utf-8", "surrogateescape")
    if names:
        session.repo.git().run("checkout-index", "-f", "-u", "-z", "--stdin", stdin=names)


def _move_refs(repo: Repository, note: Mapping[str, Any]) -> None:
    """Move refs and HEAD back, all or none, from what the command left.

    One transaction of git can not remove ``a/b`` and create ``a``; for that there are two, of which the
    second is left to the next undo if this one is killed.
    """
    here, reason = undo_notes.head(repo), f"undo: {note['line']}"
    refs, zero = undo_notes.refs(repo), "0" * (2 * repo.format.size)
    due = {name: ids for name, ids in note["refs"].items() if refs.get(name, "") != ids[0]}
    deleted = {name: new for name, (was, new) in due.items() if not was}
    rows = [f"update {name} {was} {new or zero}\n" for name, (was, new) in due.items() if was]
    deletions = [f"delete {name} {new}\n" for name, new in deleted.items()]
    is_apart = any(_collide(name, other) for name in deleted for other in due)
    _move_head(repo, tuple(note["head"][0]), reason)
    try:
        if is_apart:
            _update(repo, deletions, reason)
        _update(repo, rows if is_apart else [*rows, *deletions], reason)
    except ThetaError:
        if _are_at(repo, note, 0):  # git moves refs before it finds no room for the line of a reflog
            return
        _update(repo, [f"update {name} {new}\n" for name, new in deleted.items()] if is_apart else [], reason)
        _move_head(repo, here, reason)
        raise


def _collide(name: str, other: str) -> bool:
    """Return whether one of two refs would be a folder for the other."""
    return f"{other}/".startswith(f"{name}/") != f"{name}/".startswith(f"{other}/")


def _update(repo: Repository, rows: Sequence[str], reason: str) -> None:
    if rows:
        repo.git().run("update-ref", "-m", reason, "--stdin", stdin="".join(rows).encode())


def _move_head(repo: Repository, target: HeadState, reason: str) -> None:
    ref, commit = target
    if target == undo_notes.head(repo):
        return
    if ref:
        repo.git().run("symbolic-ref", "-m", reason, "HEAD", ref)
    else:
        repo.git().run("update-ref", "--no-deref", "-m", reason, "HEAD", commit)


def _reversed(repo: Repository, note: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """Return the note of the undo, by which it is undone."""
    return {
        "line": "theta undo",
        "losing": False,
        "files": files,
        "kept": undo_notes.other_index(repo).name,
        "head": note["head"][::-1],
        "refs": {name: (new, was) for name, (was, new) in note["refs"].items()},
        "indexes": [note["indexes"][1], undo_notes.digest(repo, repo.index_path)],
    }


def _entries(repo: Repository, index: Path) -> dict[str, Entry]:
    found = repo.read_index(index) if index.exists() else []
    if any(entry.stage for entry in found):
        raise UsageError("the index had conflicts before the command", hint=_EARLIER)
    return {entry.path: entry for entry in found}
