"""Undoing a command that did not finish, from the notes in its journal.

Git writes the files of the worktree first, then the index, and HEAD last.  If it is killed, or the disk
is full, it leaves an old HEAD, an old index and some new files.  The old content of these files is in the
index: git overwrites only unchanged files.

The journal has up to four notes: ``moving``, the state before git writes files (:func:`mark`),
``applying``, the ``head`` and ``tree`` of a merge in the index that git has not in progress,
``dated_back``, the files that were to be set to the current time at the end of the command, and ``aside``,
untracked files and the names that they have until others are in their place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from theta import _fs
from theta.errors import BusyError, NoSpaceError, ThetaError
from theta.git import state_files
from theta.git.object_format import ObjectFormat
from theta.git.repository import Repository
from theta.porcelain.workspace import unfinished

PARKED: Final = state_files.MERGE_HEAD
"""The name of the MERGE_HEAD that is moved away until git has started to commit (:mod:`concluding`)."""
_MOST: Final = 64 << 20
"""The largest file in bytes that is hashed to check whether it is stored; larger ones are kept."""
_OTHER: Final = "other"
"""The id of a file that is not read."""
_PICKING: Final = (
    state_files.CHERRY_PICK_HEAD,
    state_files.REVERT_HEAD,
    state_files.REBASE_MERGE,
    state_files.REBASE_APPLY,
)
"""State files by which git continues."""
_OF_A_MERGE: Final = (
    state_files.MERGE_MSG,
    state_files.MERGE_MODE,
    state_files.SQUASH_MSG,
    state_files.AUTO_MERGE,
)
UNFILTERED: Final = ("-c", "filter.theta.process=", "-c", "filter.theta.required=false")
"""Options of a git that writes manifests in place of files."""
_FULL: Final = ("unable to write file", "Out of diskspace")
"""Messages of git on a full disk that do not include the system's error."""


def mark(
    repo: Repository,
    toward: Iterable[str] = (),
    renames: Iterable[tuple[str, str]] = (),
    unchanged: Collection[str] = (),
) -> dict[str, Any]:
    """Return the note ``moving``: the state before git runs.

    ``toward`` are the commits whose files git may write, ``renames`` the paths that it gives others.
    Files that are ``unchanged`` may differ from the index in their stat data, and are not the user's.
    """
    toward = [revision for revision in toward if revision]
    rows = repo.listing()
    listed = {row.partition(b"\t")[2].decode("utf-8", "surrogateescape") for row in rows.split(b"\0")}
    coming = files(repo, toward).keys() - listed
    return {
        "head": _head(repo),
        "index": hashlib.sha256(rows).hexdigest(),
        "dirty": (was := dirty(repo)),
        "unchanged": sorted(was.keys() & set(unchanged)),
        "toward": toward,
        "standing": sorted(path for path in coming if os.path.lexists(repo.worktree / path)),
        "renames": {source: to for source, to in renames if os.path.lexists(repo.worktree / source)},
    }


def undo(repo: Repository, note: Mapping[str, Any], *, killed: bool = True) -> list[str]:
    """Undo the command whose journal is ``note``, unless it finished.

    Returns the files that git changed and that stay changed.  Raises :class:`NoSpaceError` or
    :class:`BusyError` if it must be tried again: the journal has to be kept until then.
    """
    applying, moving = note.get("applying"), note.get("moving")
    left: list[str] = []
    if not repo.merge_heads():  # git was killed before it wrote to the file
        _fs.remove(repo.gitdir / state_files.MERGE_HEAD)
    if isinstance(applying, dict):
        bring_back(repo, str(applying.get("head")))
    if isinstance(moving, dict):
        left = _roll_back(repo, _at_step(repo, note), killed=killed)
    if isinstance(applying, dict):
        was = moving if isinstance(moving, dict) else None
        _undo_step(repo, str(applying.get("head")), str(applying.get("tree")), was)
    _end_merge(repo)
    is_over = isinstance(moving, dict) and moving["head"] != _head(repo)
    for path, name in note.get("aside", {}).items():
        _take_back(repo.worktree / path, repo.worktree / name, is_over=is_over)
    for path in note.get("dated_back", ()):
        _fs.touch(repo.worktree / path)
    if isinstance(moving, dict):
        if killed:
            unfinished.end(repo, _commit(moving["head"]))
        unfinished.go_on(repo)
        unfinished.mend_rebase(repo)
        unfinished.mend_am(repo)
    return left


def _rename_back(repo: Repository, renames: Mapping[str, str]) -> None:
    """Rename what git had renamed: its index was never written."""
    for source, to in renames.items():
        if os.path.lexists(repo.worktree / to) and not os.path.lexists(repo.worktree / source):
            _fs.rename(repo.worktree / to, repo.worktree / source)


def _take_back(place: Path, aside: Path, *, is_over: bool) -> None:
    """Rename a file that was put aside, or remove it if the command is over and wrote another in its place.

    Both stay where something else is in its place.
    """
    if os.path.lexists(aside) and not os.path.lexists(place):
        _fs.make_dirs(place.parent)
        _fs.rename(aside, place)
    elif is_over:
        _fs.remove(aside)


def _at_step(repo: Repository, note: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the noted state, updated to the start of the commit that git was applying."""
    before: Mapping[str, Any] = note["moving"]
    step, head = unfinished.interrupted(repo), repo.head()
    if not step or head is None:
        return before
    revisions = [step, f"{step}^"]
    old = [path for path in files(repo, revisions) if _is_older(repo.worktree / path, note["started"])]
    return {
        "head": _head(repo),
        "index": _entries_of(repo, head),
        "dirty": before["dirty"],
        "unchanged": before.get("unchanged", ()),
        "toward": [*before["toward"], *revisions],
        "standing": [*before.get("standing", ()), *old],
    }


def _is_older(place: Path, than: float) -> bool:
    """Return whether a file exists and was last changed before the time ``than``."""
    return os.path.lexists(place) and os.lstat(place).st_ctime < than


def bring_back(repo: Repository, before: str | None) -> None:
    """Restore MERGE_HEAD if git did not commit the merge, so that HEAD is still ``before``."""
    parked, head = repo.private / PARKED, repo.gitdir / state_files.MERGE_HEAD
    if parked.exists():
        if repo.head() == before and not head.exists():
            _fs.rename(parked, head)
        _fs.remove(parked)


def _end_merge(repo: Repository) -> None:
    """Remove git's state files of a merge that HEAD already has: git was killed before it removed them."""
    place, head = repo.gitdir / state_files.MERGE_HEAD, repo.head()
    if head is None or not place.exists():
        return
    parents = repo.git().run("rev-list", "--parents", "-n1", head).text.split()[1:]
    if set(repo.merge_heads()) <= set(parents):
        for name in (state_files.MERGE_HEAD, *_OF_A_MERGE):
            state_files.remove(repo.gitdir, name)


def _roll_back(repo: Repository, before: Mapping[str, Any], *, killed: bool) -> list[str]:
    """Put back the files that an unfinished git changed, if it moved neither HEAD nor the index.

    Only content that the repository has, or a prefix of it, is overwritten or removed.  Returns the
    files with other content.
    """
    if before["head"] != _head(repo):
        return _give_up_commit(repo, before) if before.get("refs_last") else []
    if before["index"] != _entries(repo):
        head = _commit(before["head"])
        if before["index"] == _entries_of(repo, head) and not state_files.exists(repo.gitdir, *_PICKING):
            for revision in [*before["toward"], *filter(None, [merged(repo)])]:
                _undo_step(repo, head, revision, before)
            if killed:  # a git that ended has told of its conflicts
                _undo_conflict(repo, head, before)
        return []
    _rename_back(repo, before.get("renames", {}))
    return _put_back(repo, before, files(repo, before["toward"]))


def _give_up_commit(repo: Repository, before: Mapping[str, Any]) -> list[str]:
    """Bring index and files from a commit that no ref was moved to to HEAD, which somebody else moved.

    Changes that were staged later stay, and so does all where HEAD was at that commit.
    """
    (new,), head = before["toward"], repo.head()
    was_at = repo.git().lines("reflog", "show", "--format=%H", "HEAD", "--")
    if head is None or new in was_at or state_files.exists(repo.gitdir, *_PICKING, state_files.MERGE_HEAD):
        return []
    if before["index"] == _entries(repo):
        return _put_back(repo, before, files(repo, [new]))
    if (
        not repo.git()
        .run("diff-index", "--cached", "--quiet", "--end-of-options", new, "--", check=False)
        .code
    ):
        _take_out(repo, head, new, before)
    return []


def _put_back(repo: Repository, before: Mapping[str, Any], trees: Mapping[str, str]) -> list[str]:
    """Check out from the index the files that git wrote (path -> id in ``trees``).

    Returns the other files that changed.
    """
    remove_new(repo, trees, before.get("standing", ()))  # this also frees space
    was = before["dirty"]
    changed = {path: oid for path, oid in dirty(repo).items() if oid != was.get(path)}
    # A file that differed before is the user's; it is a manifest now if git stashed it to try a merge.
    users = was.keys() - before.get("unchanged", ())
    own = {path for path, oid in changed.items() if path in users and not _is_coming(repo, path, oid, trees)}
    gone = {path for path in changed if was.get(path) == ""}  # the user had deleted these
    back = [path for path in sorted(changed.keys() - own - gone) if is_stored(repo, path, trees.get(path))]
    return sorted(changed.keys() - set(_checked_out(repo, back)))


def _checked_out(repo: Repository, paths: list[str]) -> list[str]:
    """Check out ``paths`` from the index; return them, or nothing if git failed.

    If the filter fails they become manifests, which are filled in later, or told of.
    """
    names = "".join(f"{path}\0" for path in paths).encode("utf-8", "surrogateescape")
    out = ("checkout-index", "-f", "-u", "-z", "--stdin")
    done = not names or _git(repo, *out, stdin=names) or _git(repo, *UNFILTERED, *out, stdin=names)
    return paths if done else []


def _git(repo: Repository, *args: str, stdin: bytes | None = None) -> bool:
    """Run git and return whether it succeeded.

    Raises :class:`NoSpaceError` if the disk is full, :class:`BusyError` if the index is locked: a lock file
    stays while a git is at work, and that git may have started this theta, to filter a file.
    """
    done = repo.git().run(*args, stdin=stdin, check=False)
    if done.code and os.path.lexists(lock := Path(f"{repo.index_path}.lock")):
        raise BusyError(
            "an interrupted command cannot be undone: the index is locked",
            hint=f"if no git is running, remove {lock}; the next theta command undoes it then",
        )
    said = done.stderr.decode("utf-8", "replace")
    full = isinstance(_fs.write_error(ThetaError(said), repo.worktree), NoSpaceError)
    if done.code and (done.code < 0 or full or any(words in said for words in _FULL)):
        raise NoSpaceError(
            "an interrupted command cannot be undone: no space is left to put its files back",
            hint="free some space; the next theta command does it then",
        )
    return not done.code


def merged(repo: Repository) -> str:
    """Return the tree in AUTO_MERGE, which git writes before the index; "" without one."""
    return state_files.content(repo.gitdir, state_files.AUTO_MERGE).strip()


def remove_new(repo: Repository, trees: Mapping[str, str], standing: Iterable[str] = ()) -> None:
    """Remove the files of ``trees`` that git added; those in ``standing`` existed before."""
    for path in trees.keys() - {*standing, *repo.git().lines("ls-files", "-z")}:
        if os.path.lexists(repo.worktree / path) and is_stored(repo, path, trees[path]):
            _remove(repo, path)


def _undo_step(repo: Repository, head: str, tree: str, before: Mapping[str, Any] | None) -> None:
    """Undo a step to ``tree`` that is in the index but not in HEAD; later changes stay.

    An interrupted undo may have left files, which git would take for the user's changes.
    """
    if state_files.exists(repo.gitdir, state_files.MERGE_HEAD) or repo.head() != head:
        return
    if (
        not repo.git()
        .run("diff-index", "--cached", "--quiet", "--end-of-options", tree, "--", check=False)
        .code
    ):
        _take_out(repo, head, tree, before)


def _take_out(repo: Repository, head: str, tree: str, before: Mapping[str, Any] | None) -> None:
    """Bring index and worktree from ``tree`` back to ``head``; later changes stay."""
    repo.refresh_index()
    if before is not None:
        _put_back(repo, before, files(repo, [*before["toward"], head]))
    _git(repo, "read-tree", "-m", "-u", tree, head)
    for name in _OF_A_MERGE:
        state_files.remove(repo.gitdir, name)


def _undo_conflict(repo: Repository, head: str, before: Mapping[str, Any]) -> None:
    """Undo a step with conflicts that is in the index, unless its files in conflict were changed later."""
    tree, unmerged = merged(repo), repo.unmerged()
    if not tree or not unmerged or state_files.exists(repo.gitdir, state_files.MERGE_HEAD):
        return
    coming = files(repo, [tree])
    as_written = all(_id_of(repo.worktree / path, repo.format) == coming.get(path, "") for path in unmerged)
    other = repo.git().run(
        "diff-index", "--cached", "--name-only", "--diff-filter=u", "--end-of-options", tree, "--"
    )
    if not as_written or other.stdout:
        return
    was, known = repo.index_path.read_bytes(), files(repo, [head])
    names = "".join(f"{path}\0" for path in unmerged if path in known).encode("utf-8", "surrogateescape")
    if _git(repo, "read-tree", "--reset", tree):
        if names:  # the filter cannot clean a manifest with conflicts, so git would take it for changed
            named = ("--pathspec-from-file=-", "--pathspec-file-nul")
            _git(repo, "--literal-pathspecs", "checkout", "-q", head, *named, stdin=names)
        _take_out(repo, head, tree, before)
    if _entries(repo) != before["index"]:
        _fs.write_atomic(repo.index_path, was)


def _commit(head: str) -> str:
    """Return the commit in a result of :func:`_head`."""
    return head.split()[-1]


def _head(repo: Repository) -> str:
    return f"{(repo.gitdir / 'HEAD').read_text().strip()} {repo.head()}"


def _entries(repo: Repository) -> str:
    """Return a digest of the index without its stat data, which git refreshes at any time."""
    return hashlib.sha256(repo.listing()).hexdigest()


def _entries_of(repo: Repository, head: str) -> str:
    """Return the result of :func:`_entries` for an index that equals commit ``head``."""
    rows = repo.git().run("ls-tree", "-r", "-z", head, check=False).stdout.split(b"\0")
    heads = (row.partition(b"\t") for row in rows if row)
    found = ((*head.split(b" ")[::2], path) for head, _, path in heads)
    staged = b"".join(b"%b %b 0\t%b\0" % (mode, oid, path) for mode, oid, path in found)
    return hashlib.sha256(staged).hexdigest()


def dirty(repo: Repository) -> dict[str, str]:
    """Return path -> blob id of each file that differs from the index, "" if it is deleted.

    Only files whose stat data differ are read.
    """
    rows = repo.git().lines("diff-files", "-z")
    entries = {path: head.split(" ")[2] for head, path in zip(rows[::2], rows[1::2], strict=True)}
    found = {path: _id_of(repo.worktree / path, repo.format) for path in entries}
    return {path: oid for path, oid in found.items() if oid != entries[path]}


def _id_of(place: Path, form: ObjectFormat) -> str:
    """Return the blob id of the content of a file; "" if there is none, ``_OTHER`` if it is not read."""
    if not os.path.lexists(place):
        return ""
    if place.is_symlink() or not place.is_file() or place.stat().st_size > _MOST:
        return _OTHER
    data = place.read_bytes()
    return form.blob_id(data)


def files(repo: Repository, revisions: Iterable[str]) -> dict[str, str]:
    """Return path -> blob id of the files of ``revisions``."""
    found: dict[str, str] = {}
    for revision in filter(None, revisions):
        with contextlib.suppress(ThetaError):
            found |= {path: entry.id for path, entry in repo.walk_blobs(repo.tree_of(revision))}
    return found


def is_stored(repo: Repository, path: str, coming: str | None) -> bool:
    """Return whether the file at ``path`` is missing, or the repository has its content.

    A prefix of blob ``coming`` counts too: git was killed while it wrote the file.
    """
    place = repo.worktree / path
    if not os.path.lexists(place):
        return True
    oid = _id_of(place, repo.format)
    if oid == _OTHER:
        return False
    return repo.has(oid) or not place.stat().st_size or _begins(repo, place, coming)


def _is_coming(repo: Repository, path: str, oid: str, trees: Mapping[str, str]) -> bool:
    """Return whether git removed the file at ``path``, or began to write the version in ``trees``."""
    return oid == "" or (oid != _OTHER and _begins(repo, repo.worktree / path, trees.get(path)))


def _begins(repo: Repository, place: Path, coming: str | None) -> bool:
    """Return whether the file at ``place`` is blob ``coming``, or a prefix of it."""
    return coming is not None and repo.has(coming) and repo.read_blob(coming).startswith(place.read_bytes())


def _remove(repo: Repository, path: str) -> None:
    _fs.remove(repo.worktree / path)
    for parent in Path(path).parents:
        if parent != Path():
            _fs.remove_empty_dir(repo.worktree / parent)
