"""The one way back: what a command noted before it began is undone when it does not come to its end.

Git writes the files of the worktree first, its index after them, and HEAD last.  Killed in
between, or out of space, it leaves an old HEAD, an old index and some new files.  What stood
there before is in the index: git overwrites only files that have no changes.

The journal of a command says what it was about: ``moving``, the state before git writes files
(:func:`mark`); ``applying``, a merge that is in the index while git does not know of it, by ``head`` and
``tree``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from theta import _fs
from theta.errors import NoSpaceError, ThetaError
from theta.git import state_files
from theta.git.repository import Repository
from theta.store.odb.packs import BLOB, object_id

PARKED: Final = state_files.MERGE_HEAD
"""The MERGE_HEAD of a merge that git is asked to commit, until git has begun (:mod:`concluding`)."""
_MOST: Final = 64 << 20
"""Bytes of a file that is read to see whether it is stored; a larger one is left as it is."""
_OTHER: Final = "other"
"""In place of the id of what is not read."""
_PICKING: Final = (
    state_files.CHERRY_PICK_HEAD,
    state_files.REVERT_HEAD,
    state_files.REBASE_MERGE,
    state_files.REBASE_APPLY,
)
_NOTED: Final = (*_PICKING, state_files.SEQUENCER)
"""Files by which git goes on with what it has merged."""
_OF_A_MERGE: Final = (
    state_files.MERGE_MSG,
    state_files.MERGE_MODE,
    state_files.SQUASH_MSG,
    state_files.AUTO_MERGE,
)
_FULL: Final = ("unable to write file", "Out of diskspace")
"""What git says on a full disk, where it does not say why."""


def mark(repo: Repository, toward: Iterable[str] = ()) -> dict[str, Any]:
    """What must be known of the state before git acts; ``toward``: the commits whose files it may write."""
    toward = [revision for revision in toward if revision]
    rows = repo.listing()
    listed = {row.partition(b"\t")[2].decode("utf-8", "surrogateescape") for row in rows.split(b"\0")}
    coming = files(repo, toward).keys() - listed
    return {
        "head": _head(repo),
        "index": hashlib.sha256(rows).hexdigest(),
        "dirty": dirty(repo),
        "toward": toward,
        "standing": sorted(path for path in coming if os.path.lexists(repo.worktree / path)),
    }


def undo(repo: Repository, note: Mapping[str, Any]) -> list[str]:
    """Bring the repository back to before what ``note``, a journal, says was begun, unless it was done.

    Returns the files that a git changed and that stay so.  Raises :class:`NoSpaceError` where it must be
    tried again: the journal has to stay until then.
    """
    applying, moving = note.get("applying"), note.get("moving")
    left: list[str] = []
    if isinstance(applying, dict):
        bring_back(repo, str(applying.get("head")))
    if isinstance(moving, dict):
        left = _roll_back(repo, moving)
    if isinstance(applying, dict):
        was = moving if isinstance(moving, dict) else None
        _take_out(repo, str(applying.get("head")), str(applying.get("tree")), was)
    _end_merge(repo)
    return left


def bring_back(repo: Repository, before: str | None) -> None:
    """Let a merge be under way again that git was asked to commit, and has not: HEAD is ``before``."""
    parked, head = repo.private / PARKED, repo.gitdir / state_files.MERGE_HEAD
    if parked.exists():
        if repo.head() == before and not head.exists():
            _fs.rename(parked, head)
        _fs.remove(parked)


def _end_merge(repo: Repository) -> None:
    """Forget a merge that HEAD has already: git was killed between its last two steps."""
    place, head = repo.gitdir / state_files.MERGE_HEAD, repo.head()
    if head is None or not place.exists():
        return
    parents = repo.git().run("rev-list", "--parents", "-n1", head).text.split()[1:]
    if set(repo.merge_heads()) <= set(parents):
        for name in (state_files.MERGE_HEAD, *_OF_A_MERGE):
            _fs.remove(repo.gitdir / name)


def _roll_back(repo: Repository, before: Mapping[str, Any]) -> list[str]:
    """Put back the files that a git changed which did not end, where neither HEAD nor the index moved.

    Only content that the repository has, or the beginning of it, is overwritten or removed; the files
    with other content are returned.
    """
    if before["head"] != _head(repo):
        return []
    if before["index"] != _entries(repo):
        head = before["head"].split()[-1]
        if before["index"] == _entries_of(repo, head) and not state_files.exists(repo.gitdir, *_PICKING):
            for revision in [*before["toward"], *_merged(repo)]:
                _take_out(repo, head, revision, before)
        return []
    return _put_back(repo, before, files(repo, before["toward"]))


def _put_back(repo: Repository, before: Mapping[str, Any], trees: Mapping[str, str]) -> list[str]:
    """Let the files that git wrote toward ``trees`` be those of the index; return the others that changed."""
    remove_new(repo, trees, before.get("standing", ()))  # this makes room, too
    was = before["dirty"]
    changed = {path: oid for path, oid in dirty(repo).items() if oid != was.get(path)}
    paths = [path for path, oid in changed.items() if _is_gits(was.get(path), oid)]
    back = [path for path in paths if is_stored(repo, path, trees.get(path))]
    return sorted(changed.keys() - set(_checked_out(repo, back)))


def _checked_out(repo: Repository, paths: list[str]) -> list[str]:
    """Write ``paths`` as the index has them; return those that were written."""
    names = "".join(f"{path}\0" for path in paths).encode("utf-8", "surrogateescape")
    done = not names or _git(repo, "checkout-index", "-f", "-u", "-z", "--stdin", stdin=names)
    return paths if done else []


def _git(repo: Repository, *args: str, stdin: bytes | None = None) -> bool:
    """Whether git succeeds; raises :class:`NoSpaceError` where it may succeed with more room."""
    done = repo.git().run(*args, stdin=stdin, check=False)
    said = done.stderr.decode("utf-8", "replace")
    full = isinstance(_fs.write_error(ThetaError(said), repo.worktree), NoSpaceError)
    if done.code and (done.code < 0 or full or any(words in said for words in _FULL)):
        raise NoSpaceError(
            "an interrupted command cannot be undone: no space is left to put its files back",
            hint="free some space; the next theta command does it then",
        )
    return not done.code


def merged(repo: Repository) -> str:
    """The tree that git merged last, and wrote before the index; empty where it is not in between."""
    place = repo.gitdir / state_files.AUTO_MERGE
    return place.read_text().strip() if place.exists() else ""


def _merged(repo: Repository) -> list[str]:
    """The tree of :func:`merged`, unless git noted what it belongs to, and goes on with it."""
    tree = merged(repo)
    return [tree] if tree and not state_files.exists(repo.gitdir, *_NOTED) else []


def remove_new(repo: Repository, trees: Mapping[str, str], standing: Iterable[str] = ()) -> None:
    """Remove the files of ``trees`` that git had begun to add; those ``standing`` were there before."""
    for path in trees.keys() - {*standing, *repo.git().lines("ls-files", "-z")}:
        if os.path.lexists(repo.worktree / path) and is_stored(repo, path, trees[path]):
            _remove(repo, path)


def _take_out(repo: Repository, head: str, tree: str, before: Mapping[str, Any] | None) -> None:
    """Undo a step to ``tree`` that is in the index while HEAD does not know of it; later changes stay.

    An undoing that was broken off may have left files, which git would take for the user's.
    """
    if state_files.exists(repo.gitdir, state_files.MERGE_HEAD) or repo.head() != head:
        return
    if repo.git().run("diff-index", "--cached", "--quiet", tree, "--", check=False).code:
        return
    repo.refresh_index()
    if before is not None:
        _put_back(repo, before, files(repo, [head]))
    _git(repo, "read-tree", "-m", "-u", tree, head)
    for name in _OF_A_MERGE:
        _fs.remove(repo.gitdir / name)


def _is_gits(before: str | None, now: str) -> bool:
    """Whether git changed a file since it was ``before`` (None: unchanged, empty: gone)."""
    return before is None or (before != "" and now == "")


def _head(repo: Repository) -> str:
    return f"{(repo.gitdir / 'HEAD').read_text().strip()} {repo.head()}"


def _entries(repo: Repository) -> str:
    """A digest of the index but for its stat data, which git brings up to date at any time."""
    return hashlib.sha256(repo.listing()).hexdigest()


def _entries_of(repo: Repository, head: str) -> str:
    """What :func:`_entries` is where nothing is staged on commit ``head``."""
    rows = repo.git().run("ls-tree", "-r", "-z", head, check=False).stdout.split(b"\0")
    heads = (row.partition(b"\t") for row in rows if row)
    found = ((*head.split(b" ")[::2], path) for head, _, path in heads)
    staged = b"".join(b"%b %b 0\t%b\0" % (mode, oid, path) for mode, oid, path in found)
    return hashlib.sha256(staged).hexdigest()


def dirty(repo: Repository) -> dict[str, str]:
    """Path -> id of its bytes, of each file that is not what the index knows: empty where it is gone.

    Only files of other stat data are read.
    """
    rows = repo.git().lines("diff-files", "-z")
    entries = {path: head.split(" ")[2] for head, path in zip(rows[::2], rows[1::2], strict=True)}
    found = {path: _id_of(repo.worktree / path) for path in entries}
    return {path: oid for path, oid in found.items() if oid != entries[path]}


def _id_of(place: Path) -> str:
    """The id of the blob that holds the bytes of a file; empty where there is none."""
    if not os.path.lexists(place):
        return ""
    if place.is_symlink() or not place.is_file() or place.stat().st_size > _MOST:
        return _OTHER
    data = place.read_bytes()
    return object_id(BLOB, (data,), len(data)).hex()


def files(repo: Repository, revisions: Iterable[str]) -> dict[str, str]:
    """Path -> blob id, of the files of ``revisions``."""
    found: dict[str, str] = {}
    for revision in filter(None, revisions):
        with contextlib.suppress(ThetaError):
            found |= {path: entry.id for path, entry in repo.walk_blobs(repo.tree_of(revision))}
    return found


def is_stored(repo: Repository, path: str, coming: str | None) -> bool:
    """Whether the file at ``path`` is gone, or the repository has what it holds."""
    place = repo.worktree / path
    if not os.path.lexists(place):
        return True
    oid = _id_of(place)
    if oid == _OTHER:
        return False
    if repo.has(oid) or not place.stat().st_size:
        return True
    return coming is not None and repo.has(coming) and repo.read_blob(coming).startswith(place.read_bytes())


def _remove(repo: Repository, path: str) -> None:
    _fs.remove(repo.worktree / path)
    for parent in Path(path).parents:
        if parent != Path():
            _fs.remove_empty_dir(repo.worktree / parent)
