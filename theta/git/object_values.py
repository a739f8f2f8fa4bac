"""Git's blobs, trees and commits as values, independent of pygit2.

Ids are strings of forty hexadecimal digits.
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
"""The mode of a submodule."""


class Blob:
    """A blob; ``size`` is in bytes."""

    def __init__(self, found: pygit2.Blob) -> None:
        self._found = found
        self.size = found.size

    @property
    def data(self) -> bytes:
        """The content of the blob, uncompressed."""
        return self._found.data


@dataclass(frozen=True)
class Author:
    """The author of a commit; ``time`` is in seconds since 1970, ``zone`` in minutes east of UTC."""

    name: str
    email: str
    time: int
    zone: int


@dataclass(frozen=True)
class Commit:
    """A commit; ``message`` is decoded, ``data`` is the raw object."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: Author
    message: str
    data: bytes


class TreeEntry:
    """An entry of a tree."""

    def __init__(self, found: pygit2.Object) -> None:
        self._found = found
        self.name = found.name or ""
        self.id = str(found.id)
        self.mode = int(found.filemode)

    @property
    def is_file(self) -> bool:
        """Whether the entry is a regular file: no link, submodule or directory."""
        return self.mode in (MODE_BLOB, MODE_EXECUTABLE)

    @cached_property
    def tree(self) -> Tree | None:
        """The tree of a directory; None for any other entry."""
        return Tree(self._found) if isinstance(self._found, pygit2.Tree) else None


class Tree:
    """A tree; subtrees are read on access.

    Reading a tree that is missing raises :class:`KeyError`, a damaged one
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
        """Return the entry at ``path``, or None."""
        with _reading(self.id), contextlib.suppress(KeyError):
            return TreeEntry(self._found[path])
        return None


def differing(
    before: Tree | None, after: Tree | None, skip: str = "", prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the files that differ between two trees, except below directory ``skip``.

    Each is (path, letter) with A, D, M or T as in ``git diff-tree``.
    """
    old = {entry.name: entry for entry in before or ()}
    new = {entry.name: entry for entry in after or ()}
    for name in sorted((old.keys() | new.keys()) - {skip}):
        one, other = old.get(name), new.get(name)
        if one is not None and other is not None and (one.id, one.mode) == (other.id, other.mode):
            continue
        yield from _inside(one, other, prefix + name)


def _inside(one: TreeEntry | None, other: TreeEntry | None, path: str) -> Iterator[tuple[str, str]]:
    """Yield the differing files at and below ``path``."""
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
    """Return ``found`` as a blob, or None if it is none."""
    return Blob(found) if isinstance(found, pygit2.Blob) else None


def tree(found: pygit2.Object | None) -> Tree | None:
    """Return ``found`` as a tree, or None if it is none."""
    return Tree(found) if isinstance(found, pygit2.Tree) else None


def commit(found: pygit2.Object | None) -> Commit | None:
    """Return ``found`` as a commit, or None if it is none."""
    if not isinstance(found, pygit2.Commit):
        return None
    author = Author(found.author.name, found.author.email, found.author.time, found.author.offset)
    parents = tuple(map(str, found.parent_ids))
    return Commit(str(found.id), str(found.tree_id), parents, author, found.message, found.read_raw())
