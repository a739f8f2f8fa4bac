"""Git's objects as values: blobs, trees and commits, independent of what reads the repository.

An id is its forty hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pygit2

from theta.errors import DamagedRepositoryError

DAMAGED: Final = "'git fsck' tells what is damaged"
MODE_TREE: Final = 0o040000
MODE_BLOB: Final = 0o100644
MODE_EXECUTABLE: Final = 0o100755
MODE_COMMIT: Final = 0o160000
"""A submodule."""


class Blob:
    """The content of a file."""

    def __init__(self, found: pygit2.Blob) -> None:
        self._found = found
        self.size = found.size

    @property
    def data(self) -> bytes:
        """All bytes."""
        return self._found.data


@dataclass(frozen=True)
class Author:
    """Who wrote a commit, and when: seconds since 1970, and minutes that the zone is ahead of UTC."""

    name: str
    email: str
    time: int
    zone: int


@dataclass(frozen=True)
class Commit:
    """A commit; ``data`` is the object itself, ``message`` in its encoding."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: Author
    message: str
    data: bytes


class TreeEntry:
    """One name in a tree."""

    def __init__(self, found: pygit2.Object) -> None:
        self._found = found
        self.name = found.name or ""
        self.id = str(found.id)
        self.mode = int(found.filemode)

    @property
    def is_file(self) -> bool:
        """Whether it is a file of bytes: no link, no submodule, no directory."""
        return self.mode in (MODE_BLOB, MODE_EXECUTABLE)

    @cached_property
    def tree(self) -> Tree | None:
        """The directory that it names; None for everything else."""
        return Tree(self._found) if isinstance(self._found, pygit2.Tree) else None


class Tree:
    """A directory of a commit; what lies deeper is read when it is asked for.

    Reading a directory that is not in this repository raises :class:`KeyError`, one that is damaged
    :class:`DamagedRepositoryError`.
    """

    def __init__(self, found: pygit2.Tree) -> None:
        self._found = found
        self.id = str(found.id)

    def __iter__(self) -> Iterator[TreeEntry]:
        with _reading(self.id):
            return map(TreeEntry, list(self._found))

    def __contains__(self, path: str) -> bool:
        with _reading(self.id):
            return path in self._found

    def get(self, path: str) -> TreeEntry | None:
        """What stands at ``path``, or None."""
        with _reading(self.id), contextlib.suppress(KeyError):
            return TreeEntry(self._found[path])
        return None


def differing(
    before: Tree | None, after: Tree | None, skip: str = "", prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """The files that differ between two directories, outside of directory ``skip``.

    Each is a path with A, D, M or T, as ``git diff-tree`` has it.
    """
    old = {entry.name: entry for entry in before or ()}
    new = {entry.name: entry for entry in after or ()}
    for name in sorted((old.keys() | new.keys()) - {skip}):
        one, other = old.get(name), new.get(name)
        if one is not None and other is not None and (one.id, one.mode) == (other.id, other.mode):
            continue
        yield from _inside(one, other, prefix + name)


def _inside(one: TreeEntry | None, other: TreeEntry | None, path: str) -> Iterator[tuple[str, str]]:
    """What differs at ``path`` and below it."""
    before, after = (entry.tree if entry is not None else None for entry in (one, other))
    if before is not None or after is not None:
        yield from differing(before, after, prefix=f"{path}/")
    one, other = (None if entry is None or entry.tree is not None else entry for entry in (one, other))
    if one is not None or other is not None:
        yield path, _letter(one, other)


def _letter(before: TreeEntry | None, after: TreeEntry | None) -> str:
    if before is None or after is None:
        return "A" if before is None else "D"
    return "M" if stat.S_IFMT(before.mode) == stat.S_IFMT(after.mode) else "T"


@contextlib.contextmanager
def _reading(oid: str) -> Iterator[None]:
    try:
        yield
    except pygit2.GitError as error:
        raise DamagedRepositoryError(f"tree {oid} cannot be read: {error}", hint=DAMAGED) from error


def blob(found: pygit2.Object | None) -> Blob | None:
    """``found`` if it is a blob."""
    return Blob(found) if isinstance(found, pygit2.Blob) else None


def tree(found: pygit2.Object | None) -> Tree | None:
    """``found`` if it is a tree."""
    return Tree(found) if isinstance(found, pygit2.Tree) else None


def commit(found: pygit2.Object | None) -> Commit | None:
    """``found`` if it is a commit."""
    if not isinstance(found, pygit2.Commit):
        return None
    author = Author(found.author.name, found.author.email, found.author.time, found.author.offset)
    parents = tuple(map(str, found.parent_ids))
    return Commit(str(found.id), str(found.tree_id), parents, author, found.message, found.read_raw())
