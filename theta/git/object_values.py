"""Git's objects as values: blobs, trees and commits, parsed from their bytes.

An id is its hexadecimal digits.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from theta.errors import CorruptError, DamagedRepositoryError, MissingObjectsError
from theta.git.object_format import BLOB, COMMIT, TAG, TREE
from theta.lazy import lazy

if TYPE_CHECKING:
    from theta.git.backends.protocols import ObjectStore

DAMAGED: Final = "'git fsck' tells what is damaged"
MODE_TREE: Final = 0o040000
MODE_BLOB: Final = 0o100644
MODE_EXECUTABLE: Final = 0o100755
MODE_COMMIT: Final = 0o160000
"""The mode of a submodule."""
_PLAIN: Final = b"100644"
"""The digits of the mode of a plain file."""
_PLAIN_ROW: Final = {
    size: re.compile(_PLAIN + rb" ([!-.0-~]+)\0(.{%d})" % size, re.DOTALL) for size in (20, 32)
}
"""An entry of a plain file whose name is of ASCII, by the bytes of an id."""

_AUTHOR: Final = re.compile(rb"author ([^<\n]*)<([^>\n]*)>(?: (-?\d{1,18}) ([+-])(\d\d)(\d\d))?")
_ENCODING: Final = re.compile(rb"^encoding (.+)$", re.MULTILINE)


class Blob:
    """A blob, read on access; ``size`` is in bytes."""

    def __init__(self, oid: str, size: int, store: ObjectStore) -> None:
        self.id, self.size, self._store = oid, size, store

    @property
    def data(self) -> bytes:
        """The content of the blob, uncompressed."""
        found = self._store.read(self.id)
        if found is None:
            raise MissingObjectsError(f"blob {self.id} is not in this repository")
        return found[1]


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

    def __init__(self, name: str, oid: str, mode: int, store: ObjectStore) -> None:
        self.name, self.id, self.mode, self._store = name, oid, mode, store

    @property
    def is_file(self) -> bool:
        """Whether the entry is a regular file: no link, submodule or directory."""
        return self.mode in (MODE_BLOB, MODE_EXECUTABLE)

    @lazy
    def tree(self) -> Tree | None:
        """The tree of a directory; None for any other entry."""
        return Tree(self.id, self._store) if self.mode == MODE_TREE else None


class Tree:
    """A tree; subtrees are read on access.

    Reading a tree that is missing raises :class:`MissingObjectsError`, a damaged one
    :class:`DamagedRepositoryError`.
    """

    def __init__(self, oid: str, store: ObjectStore) -> None:
        self.id, self._store = oid, store

    @lazy
    def entries(self) -> dict[str, TreeEntry]:
        """The entries by name."""
        found = self._store.read(self.id)
        if found is None:
            raise MissingObjectsError(f"tree {self.id} is missing", hint="'theta fsck' tells more")
        if found[0] != TREE:
            raise _damaged(self.id, f"it is a {found[0]}")
        rows = _tree_rows(found[1], self.id)
        return {name: TreeEntry(name, oid, _mode(digits), self._store) for name, digits, oid in rows}

    def __iter__(self) -> Iterator[TreeEntry]:
        return iter(self.entries.values())

    def __contains__(self, path: str) -> bool:
        return self.get(path) is not None

    def get(self, path: str) -> TreeEntry | None:
        """Return the entry at ``path``, or None."""
        first, _, rest = path.partition("/")
        entry = self.entries.get(first)
        if not rest or entry is None:
            return entry
        return entry.tree.get(rest) if entry.tree is not None else None


@dataclass(frozen=True)
class TreePath:
    """A file of a version, as gitrevisions(7) writes it.

    Attributes:
        revision: a revision; "" for the index, ":1" to ":3" for a side of a conflict there.
        path: the path as it was written; "" for the root folder.
    """

    revision: str
    path: str

    @property
    def is_staged(self) -> bool:
        """Whether it is of the index."""
        return self.revision == "" or self.revision.startswith(":")

    @property
    def is_relative(self) -> bool:
        """Whether the path is from the current directory, not from the root."""
        return self.path.startswith(("./", "../"))

    @property
    def where(self) -> str:
        """The version in words."""
        if self.revision.startswith(":"):
            return f"stage {self.revision[1:]} of the index"
        return self.revision or "the index"

    def __str__(self) -> str:
        return f"{self.revision}:{self.path}"


def tree_path(text: str) -> TreePath | None:
    """Parse ``REV:PATH``, ``:PATH`` or ``:N:PATH``; None for other text, such as ``:/TEXT`` of a message."""
    if text.startswith(":/"):
        return None
    if re.match(":[0-3]:", text):
        return TreePath(text[:2].removesuffix(":0"), text[3:])
    depth = 0
    for at, letter in enumerate(text):
        if letter == ":" and not depth:
            return TreePath(text[:at], text[at + 1 :])
        depth += (letter == "{") - (letter == "}" and depth > 0)
    return None


def _tree_rows(data: bytes, oid: str) -> Iterator[tuple[str, bytes, str]]:
    """Yield (name, octal digits of the mode, id) of each entry of tree ``oid``."""
    size, at = len(oid) // 2, 0
    while at < len(data):
        end = data.find(b"\0", at)
        mode, _, name = data[at:end].partition(b" ")
        at = end + 1 + size
        if end < 0 or at > len(data) or not name or not mode.isdigit():
            raise _damaged(oid, "a broken entry")
        yield os.fsdecode(name), mode, data[end + 1 : at].hex()


@lru_cache(64)
def _mode(digits: bytes) -> int:
    """Return the mode that octal ``digits`` are for git, which heeds one bit only of a file."""
    found = int(digits, 8)
    return (MODE_EXECUTABLE if found & 0o100 else MODE_BLOB) if stat.S_ISREG(found) else found


def _damaged(oid: str, why: str) -> DamagedRepositoryError:
    return DamagedRepositoryError(f"object {oid} cannot be read: {why}", hint=DAMAGED)


def tree_bytes(entries: Iterable[tuple[str, int, str]]) -> bytes:
    """Return the bytes of a tree of (name, mode, hex id), in any order."""
    rows = [(os.fsencode(name), mode, bytes.fromhex(oid)) for name, mode, oid in entries]
    rows.sort(key=lambda row: row[0] + b"/" if row[1] == MODE_TREE else row[0])
    return b"".join(b"%o %s\0%s" % (mode, name, oid) for name, mode, oid in rows)


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


def blob(store: ObjectStore, oid: str) -> Blob | None:
    """Return blob ``oid``; None when it is missing or another kind of object."""
    found = store.header(oid)
    return Blob(oid, found[1], store) if found is not None and found[0] == BLOB else None


def tree(store: ObjectStore, oid: str) -> Tree | None:
    """Return tree ``oid``; None when it is missing or another kind of object."""
    found = store.header(oid)
    return Tree(oid, store) if found is not None and found[0] == TREE else None


def ids(store: ObjectStore, oid: str) -> dict[str, str] | None:
    """Return name -> id of the entries of tree ``oid``; None when it is missing or another kind of object."""
    found = store.read(oid)
    if found is None or found[0] != TREE:
        return None
    return {name: entry for name, _, entry in _tree_rows(found[1], oid)}


def files(store: ObjectStore, oid: str) -> dict[str, str] | None:
    """Return name -> id of tree ``oid`` of plain files; None when it is missing or another kind of object.

    Raises :class:`CorruptError` for an entry of any other mode than 100644, and for a name that stands twice.
    """
    found = store.read(oid)
    if found is None or found[0] != TREE:
        return None
    names: dict[str, str] = {}
    for name, digits, entry in _tree_rows(found[1], oid):
        if digits != _PLAIN or name in names:
            raise CorruptError(f"tree {oid} is not one of plain files, each under a name of its own")
        names[name] = entry
    return names


def plain_files(data: bytes | memoryview, size: int) -> dict[str, str] | None:
    """Return what :func:`files` finds in the tree with these bytes, much faster; ids have ``size`` bytes.

    None for a tree that it refuses, and for names that are not of ASCII.
    """
    rows = _PLAIN_ROW[size].findall(data)
    found = {name.decode("ascii"): entry.hex() for name, entry in rows}
    used = sum(map(len, found)) + len(rows) * (len(_PLAIN) + 2 + size)
    return found if len(found) == len(rows) and used == len(data) else None


def commit(store: ObjectStore, oid: str) -> Commit | None:
    """Return commit ``oid``; None when it is missing or another kind of object."""
    try:
        found = store.read(oid)
    except DamagedRepositoryError:
        return None
    return _commit(oid, found[1]) if found is not None and found[0] == COMMIT else None


def _commit(oid: str, data: bytes) -> Commit:
    head, _, message = data.partition(b"\n\n")
    rows = [row.partition(b" ") for row in head.split(b"\n")]
    tree = next((value.decode() for key, _, value in rows if key == b"tree"), "")
    parents = tuple(value.decode() for key, _, value in rows if key == b"parent")
    if not tree:
        raise _damaged(oid, "a commit without a tree")
    said = _ENCODING.search(head)
    encoding = said[1].decode("ascii", "replace").strip() if said else "utf-8"
    return Commit(oid, tree, parents, _author(head, encoding), _text(message.lstrip(b"\n"), encoding), data)


def _author(head: bytes, encoding: str) -> Author:
    found = _AUTHOR.search(head)
    if found is None:
        return Author("", "", 0, 0)
    name, email = (_text(part.strip(), encoding) for part in (found[1], found[2]))
    zone = int(f"{found[4].decode()}1") * (int(found[5]) * 60 + int(found[6])) if found[4] else 0
    return Author(name, email, int(found[3] or 0), zone)


def _text(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding, "replace")
    except LookupError:
        return data.decode("utf-8", "replace")


def peeled(store: ObjectStore, oid: str) -> str:
    """Return the object that tag ``oid`` names, through tags of tags; any other id as it is."""
    while (kind := store.header(oid)) is not None and kind[0] == TAG:
        found = store.read(oid)
        if found is None:
            break
        oid = found[1].partition(b"\n")[0].removeprefix(b"object ").decode("ascii", "replace")
    return oid
