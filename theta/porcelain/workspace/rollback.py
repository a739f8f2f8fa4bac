"""Files that a git was killed over, in the middle of writing them, are put back.

Git writes the files of the worktree first, its index after them, and HEAD last.  Killed in
between it leaves an old HEAD, an old index and some new files.  What stood
there before is in the index: git overwrites only files that have no changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from theta import _fs
from theta.errors import ThetaError
from theta.git import state_files
from theta.git.repository import Repository
from theta.store.odb.packs import BLOB, object_id

_MOST: Final = 64 << 20
"""Bytes of a file that is read to see whether it is stored; a larger one is left as it is."""
_OTHER: Final = "other"
"""In place of the id of what is not read."""
_NOTED: Final = (
    state_files.CHERRY_PICK_HEAD,
    state_files.REVERT_HEAD,
    state_files.REBASE_MERGE,
    state_files.REBASE_APPLY,
    state_files.SEQUENCER,
)
"""Files by which git goes on with what it has merged."""
_OF_A_MERGE: Final = (
    state_files.MERGE_MSG,
    state_files.MERGE_MODE,
    state_files.SQUASH_MSG,
    state_files.AUTO_MERGE,
)


def mark(repo: Repository, toward: Iterable[str] = ()) -> dict[str, Any]:
    """What must be known of the state before git acts; ``toward``: the commits whose files it may write."""
    return {
        "head": _head(repo),
        "index": _entries(repo),
        "dirty": dirty(repo),
        "toward": [revision for revision in toward if revision],
    }


def roll_back(repo: Repository, before: Mapping[str, Any]) -> None:
    """Put back the files that a dead git changed, where neither HEAD nor the index moved.

    Only content that the repository has, or the beginning of it, is overwritten or removed.
    """
    if before["head"] != _head(repo):
        return
    if before["index"] != _entries(repo):
        head = before["head"].split()[-1]
        if before["index"] == _entries_of(repo, head):
            for revision in [*before["toward"], *_merged(repo)]:
                take_out(repo, head, revision)
        return
    trees = files(repo, before["toward"])
    paths = [path for path, oid in dirty(repo).items() if _is_gits(before["dirty"].get(path), oid)]
    back = [path for path in paths if is_stored(repo, path, trees.get(path))]
    if back:
        names = "".join(f"{path}\0" for path in back).encode("utf-8", "surrogateescape")
        repo.git().run("checkout-index", "-f", "-u", "-z", "--stdin", stdin=names)
    remove_new(repo, trees)


def merged(repo: Repository) -> str:
    """The tree that git merged last, and wrote before the index; empty where it is not in between."""
    place = repo.gitdir / state_files.AUTO_MERGE
    return place.read_text().strip() if place.exists() else ""


def _merged(repo: Repository) -> list[str]:
    """The tree of :func:`merged`, unless git noted what it belongs to, and goes on with it."""
    tree = merged(repo)
    return [tree] if tree and not any((repo.gitdir / name).exists() for name in _NOTED) else []


def remove_new(repo: Repository, trees: Mapping[str, str]) -> None:
    """Remove the files that git had begun to add."""
    for path in trees.keys() - set(repo.git().lines("ls-files", "-z")):
        if os.path.lexists(repo.worktree / path) and is_stored(repo, path, trees[path]):
            _remove(repo, path)


def take_out(repo: Repository, head: str, tree: str) -> bool:
    """Undo a step to ``tree`` that is in the index while HEAD does not know of it; later changes stay.

    Returns False where that has to be tried again: the disk is full, say.
    """
    if state_files.exists(repo.gitdir, state_files.MERGE_HEAD) or repo.head() != head:
        return True
    git = repo.git()
    if git.run("diff-index", "--cached", "--quiet", tree, "--", check=False).code:
        return True
    repo.refresh_index()
    if git.run("read-tree", "-m", "-u", tree, head, check=False).code:
        return False
    for name in _OF_A_MERGE:
        _fs.remove(repo.gitdir / name)
    return True


def _is_gits(before: str | None, now: str) -> bool:
    """Whether git changed a file since it was ``before`` (None: unchanged, empty: gone)."""
    return before is None or (before != "" and now == "")


def _head(repo: Repository) -> str:
    return f"{(repo.gitdir / 'HEAD').read_text().strip()} {repo.head()}"


def _entries(repo: Repository) -> str:
    """A digest of the index but for its stat data, which git brings up to date at any time."""
    return hashlib.sha256(repo.git().run("ls-files", "-s", "-z").stdout).hexdigest()


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
