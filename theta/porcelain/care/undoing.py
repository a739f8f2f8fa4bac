"""``theta undo``: the last command of theta is taken back, in refs, index and worktree.

Before a command that changes something, refs are noted and the index gets a second name; git and theta
write a new index beside the old one, so that this costs no copy.  When the command has ended, what differs
is noted.  Undoing is allowed as long as that is still so.  A file of the worktree was written by the command
if its times are not before the start of the command: such a file, if nobody changed it since, is brought to
the version of the old index.  Any other file is left alone: ``theta commit -a`` is undone without
touching the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from theta import _fs, _notes
from theta.errors import MissingObjectsError, NotFoundError, UsageError, WouldOverwriteError
from theta.git import in_progress
from theta.git.backends import opening
from theta.git.backends.index_entries import Entry, Staged
from theta.git.repository import STORES, Repository
from theta.porcelain.workspace import agreement
from theta.porcelain.workspace.session import Session
from theta.progress import Progress

_NOTE: Final = "undo.json"
_INDEX: Final = "undo-index"
_KEPT: Final = ("refs/heads/", "refs/tags/", "refs/theta/runs/")
_TICK: Final = 0.02
"""Seconds by which the change time of a file may be before the clock, whose ticks it counts in."""
_FILES: Final = (0o100644, 0o100755, 0o120000)


@dataclass(frozen=True)
class Before:
    """The state before a command: HEAD, the refs of the user, and the second name of the index."""

    session: Session
    index: Path
    started: float
    head: tuple[str, str]
    refs: Mapping[str, str]


@dataclass(frozen=True)
class Command:
    """The command that ran.

    Attributes:
        line: what the user typed.
        can_be_undone: what it changes is known from refs and index.
        losing: it may throw away what was not committed.
        may_be_of_files: if it changed neither refs nor index, it changed files.
    """

    line: str
    can_be_undone: bool = True
    losing: bool = False
    may_be_of_files: bool = False


@dataclass(frozen=True)
class Undone:
    """The result of an undo.

    Attributes:
        line: the command that was undone.
        refs: name -> (old id, new id) of the refs that moved; "" for a ref that is not there.
        files: the files of the worktree that were brought to their version before the command.
        losing: the command threw away what was not committed, which nothing brings back.
    """

    line: str
    refs: Mapping[str, tuple[str, str]]
    files: Sequence[str]
    losing: bool


def begin(start: Path) -> Before | None:
    """Note the state before a command at ``start``; None in a repository that nothing can be undone in.

    Those that only git can open are among these, as each look at them is a process.
    """
    backend = opening.quickly(start)
    if backend is None:
        return None
    session = Session(Repository(backend))
    repo = session.repo
    if repo.is_read_only or repo.is_bare:
        return None
    session.journal.heal()
    _notes.directory(repo.private)
    index = repo.private / _fs.own_temporary("index")
    if repo.index_path.exists():
        _fs.link(repo.index_path, index)
    return Before(session, index, time.time(), _head(repo), _refs(repo))


def end(before: Before, command: Command) -> None:
    """Note what the command changed since; a command that changed nothing leaves no note.

    One that cannot be undone, or changed files only, is noted by its line.
    """
    repo = before.session.again().repo
    try:
        body = _changes(before, repo)
        line, losing = command.line, command.losing
        if body is not None and command.can_be_undone:
            if before.index.exists():
                _fs.rename(before.index, repo.private / _INDEX)
            else:
                _fs.remove(repo.private / _INDEX)
            _notes.write(repo.private / _NOTE, json.dumps({"line": line, "losing": losing, **body}))
        elif losing or command.may_be_of_files or not command.can_be_undone:
            _notes.write(repo.private / _NOTE, json.dumps({"line": line}))
    finally:
        if before.index.exists():
            _fs.remove(before.index)


def _changes(before: Before, repo: Repository) -> dict[str, Any] | None:
    """Return what a command changed; None when that is nothing."""
    refs, head = _refs(repo), _head(repo)
    moved = {
        name: (before.refs.get(name, ""), refs.get(name, ""))
        for name in sorted(before.refs.keys() | refs.keys())
        if before.refs.get(name) != refs.get(name)
    }
    indexes = [_digest(repo, before.index), _digest(repo, repo.index_path)]
    if not moved and head == before.head and indexes[0] == indexes[1]:
        return None
    return {"started": before.started, "head": [before.head, head], "refs": moved, "indexes": indexes}


def undo(session: Session, progress: Progress | None = None) -> Undone:
    """Undo the last command of theta.

    Raises :class:`NotFoundError` without one, :class:`UsageError` if something changed since or is in
    progress, :class:`WouldOverwriteError` if a file that it wrote was changed since.
    """
    note = _read(session.repo)
    with session.change() as change:
        _check(session, note)
        agreement.refresh(session, progress)
        session.repo.refresh_index()
        now, old = (
            _entries(session.repo, session.repo.index_path),
            _entries(session.repo, session.repo.private / _INDEX),
        )
        differing = [
            path for path in sorted(now.keys() | old.keys()) if _key(now.get(path)) != _key(old.get(path))
        ]
        _check_objects(session, [old[path] for path in differing if path in old])
        files = _written(
            session, [path for path in differing if not _is_inside(path)], now, old, note["started"]
        )
        for path in differing:
            entry = old.get(path)
            if entry is None:
                change.index.remove(path)
            else:
                change.index.put(Staged(path, entry.oid, entry.mode, skip=entry.skip))
    _move_refs(session.repo, note)
    _put(session, files, old)
    fresh = session.again()
    agreement.fill(fresh, progress)
    agreement.refresh(fresh, progress)
    moved = {name: (new, was) for name, (was, new) in note["refs"].items()}
    return Undone(note["line"], moved, files, bool(note["losing"]))


def _read(repo: Repository) -> dict[str, Any]:
    note = _notes.read_json(repo.private / _NOTE)
    if "line" not in note:
        raise NotFoundError("no command of theta is known here that could be undone")
    if "refs" not in note:
        raise UsageError(
            f"'{note['line']}' cannot be undone: nothing keeps what files were before it",
            hint="'git reflog' lists earlier commits",
        )
    return note


def _check(session: Session, note: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` unless all is as the command left it."""
    repo, line = session.repo, note["line"]
    if name := in_progress.current(repo).name:
        raise UsageError(f"a {name} is in progress", hint=f"'theta {name} --abort' takes it back")
    if session.index.conflicts:
        raise UsageError("the index has conflicts", hint="'theta resolve' settles them")
    refs = _refs(repo)
    moved = [name for name, (_, new) in note["refs"].items() if refs.get(name, "") != new]
    if moved or list(_head(repo)) != note["head"][1]:
        raise UsageError(
            f"{moved[0] if moved else 'HEAD'} moved since '{line}', so that is not undone",
            hint="'git reflog' lists earlier commits",
        )
    if [_digest(repo, repo.private / _INDEX), _digest(repo, repo.index_path)] != note["indexes"]:
        raise UsageError(
            f"the index changed since '{line}', so that is not undone",
            hint="'theta restore --staged' takes changes out",
        )


def _check_objects(session: Session, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.mode in _FILES and not session.repo.obtains(entry.oid):
            raise MissingObjectsError(f"{entry.path}: its version before the command is not kept any more")


def _written(
    session: Session,
    paths: Sequence[str],
    now: Mapping[str, Entry],
    old: Mapping[str, Entry],
    started: float,
) -> list[str]:
    """Return those of ``paths`` whose file the command wrote or removed.

    Raises :class:`WouldOverwriteError` if one was changed since.
    """
    changed = set(session.repo.git().lines("diff-files", "-z", "--name-only"))
    root, found = session.repo.worktree, list[str]()
    for path in paths:
        info = _stat(root / path)
        if info is None:
            if path not in now and old[path].mode in _FILES and _is_new(root, path, started):
                found.append(path)
        elif path in now and _is_written(info, started, renamed=path not in old) and now[path].mode in _FILES:
            if path in changed:
                raise WouldOverwriteError(
                    f"{path} was changed since the command", hint="commit it, or stash it, and undo again"
                )
            found.append(path)
    return found


def _is_written(info: os.stat_result, started: float, *, renamed: bool) -> bool:
    """Return whether a file was written since; renaming or copying one sets its change time only."""
    times = (info.st_ctime,) if renamed else (info.st_ctime, info.st_mtime)
    return min(times) >= started - _TICK


def _is_new(root: Path, path: str, started: float) -> bool:
    """Return whether a missing file may have been removed since: its folder changed, or is gone too."""
    folder = _stat((root / path).parent)
    return folder is None or folder.st_ctime >= started - _TICK


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
    """Move refs and HEAD back, all or none, from what the command left."""
    rows = []
    zero = "0" * len(repo.head() or "0" * 40)
    for name, (was, new) in note["refs"].items():
        rows.append(f"update {name} {was} {new or zero}" if was else f"delete {name} {new}")
    (ref, commit), reason = note["head"][0], f"undo: {note['line']}"
    if ref and ref != _head(repo)[0]:
        repo.git().run("symbolic-ref", "-m", reason, "HEAD", ref)
    elif not ref:
        repo.git().run("update-ref", "--no-deref", "-m", reason, "HEAD", commit)
    if rows:
        repo.git().run(
            "update-ref", "-m", reason, "--stdin", stdin="".join(f"{row}\n" for row in rows).encode()
        )


def _head(repo: Repository) -> tuple[str, str]:
    """Return the ref at HEAD ("" if detached), and the commit of a detached HEAD."""
    ref, commit = repo.refs.head()
    return ref, "" if ref else commit or ""


def _refs(repo: Repository) -> dict[str, str]:
    return {name: oid for name, oid in repo.refs.all_resolved().items() if name.startswith(_KEPT)}


def _digest(repo: Repository, index: Path) -> str:
    """Return a digest of the entries of an index, without stat data; "" without one."""
    return hashlib.sha256(repo.backend.indexes.listing(index)).hexdigest() if index.exists() else ""


def _entries(repo: Repository, index: Path) -> dict[str, Entry]:
    found = repo.read_index(index) if index.exists() else []
    if any(entry.stage for entry in found):
        raise UsageError(
            "the index had conflicts before the command", hint="'git reflog' lists earlier commits"
        )
    return {entry.path: entry for entry in found}


def _key(entry: Entry | None) -> tuple[str, int] | None:
    return (entry.oid, entry.mode) if entry is not None else None


def _is_inside(path: str) -> bool:
    return path.startswith(f"{STORES}/")


def _stat(place: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return os.lstat(place)
    return None
