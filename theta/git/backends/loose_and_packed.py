"""The objects of this repository, found without git, which fetches a promised one when it is asked for it.

The files are those of gitformat-pack(5), version 2 of the index of a pack, and of loose objects.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import CorruptError, DamagedRepositoryError
from theta.git.backends.pack_index import PackIndex
from theta.git.object_format import BLOB, COMMIT, TAG, TREE, format_of
from theta.git.object_values import DAMAGED

_KINDS: Final = frozenset(kind.encode() for kind in (BLOB, COMMIT, TAG, TREE))
_PIECE: Final = 1 << 16
"""Bytes that are read and unpacked at a time; for more, the system has to map memory for each object."""


class ObjectFiles:
    """The ids of the objects below the directories ``places`` (that of the repository, and alternates)."""

    def __init__(self, places: list[Path], size: int) -> None:
        self.places, self._size = places, size
        self._known: dict[Path, PackIndex | None] = {}
        self._seen: list[tuple[int, ...]] = []

    @cached_property
    def is_partial(self) -> bool:
        """Whether a remote promised objects."""
        return any(any((place / "pack").glob("*.promisor")) for place in self.places)

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is there."""
        raw = bytes.fromhex(oid)
        if any(_has(index, raw) for index in self._known.values() if index is not None):
            return True
        if any((place / oid[:2] / oid[2:]).exists() for place in self.places):
            return True
        return any(_has(index, raw) for index in self._new())

    def loose(self, oid: str) -> tuple[str, bytes] | None:
        """Return the kind and the bytes of a loose object; None without a file.

        Raises :class:`DamagedRepositoryError` if none of its files has the object.
        """
        name, damage = f"{oid[:2]}/{oid[2:]}", None
        for path in (f"{place}/{name}" for place in self.places):
            if not os.path.exists(path):
                continue
            try:
                return _parsed(b"".join(unpacked(path)), oid)
            except FileNotFoundError:  # git packed it meanwhile
                continue
            except (OSError, CorruptError) as error:
                damage = DamagedRepositoryError(f"object {oid} cannot be read: {error}", hint=DAMAGED)
        if damage is not None:
            raise damage
        return None

    def loose_ids(self, start: str) -> set[str]:
        """Return the ids of the loose objects whose id begins with ``start``, of two digits at least."""
        folder, rest = start[:2], start[2:]
        found = (file.name for place in self.places for file in (place / folder).glob(f"{rest}*"))
        return {folder + name for name in found if len(name) == 2 * self._size - 2}

    def _new(self) -> list[PackIndex]:
        """Return the indexes of packs that came since the last look."""
        now, looks = time.time_ns(), [_look(place / "pack") for place in self.places]
        seen = [state for state, _ in looks]
        if seen == self._seen:
            return []
        self._seen = seen if all(certain_from <= now for _, certain_from in looks) else []
        files = (path for place in self.places for path in (place / "pack").glob("*.idx"))
        new = {path: _opened(path, self._size) for path in files if path not in self._known}
        self._known |= new
        return [index for index in new.values() if index is not None]


def unpacked(path: str | Path) -> Iterator[bytes]:
    """Yield the content of the file of a loose object, its header included, in pieces.

    Raises :class:`CorruptError` for a file that is damaged, ends too early, or goes on behind its end.
    """
    unpack = zlib.decompressobj()
    try:
        with open(path, "rb", buffering=0) as file:
            while not unpack.eof:
                piece = unpack.unconsumed_tail or file.read(_PIECE)
                if not piece:
                    raise CorruptError("its file is cut short")
                yield unpack.decompress(piece, _PIECE)
            if unpack.unused_data or file.read(1):
                raise CorruptError("its file goes on behind its end")
    except zlib.error as error:
        raise CorruptError(f"its file is damaged: {error}") from error


def _parsed(content: bytes, oid: str) -> tuple[str, bytes]:
    """Return the kind and the bytes of object ``oid``, of its header and them."""
    head, end, data = content.partition(b"\0")
    kind, _, size = head.partition(b" ")
    if not end or size != b"%d" % len(data) or kind not in _KINDS:
        raise CorruptError("its header is damaged")
    if format_of(oid).hash(content).hexdigest() != oid:
        raise CorruptError("its content is that of another")
    return kind.decode(), data


def places(objects: Path) -> list[Path]:
    """Return ``objects`` and the directories that its alternates name, theirs too."""
    found, todo = list[Path](), [objects]
    while todo:
        place = todo.pop()
        if place in found:
            continue
        found.append(place)
        try:
            rows = (place / "info" / "alternates").read_bytes().decode("utf-8", "surrogateescape")
        except OSError:
            continue
        todo += [place / row for row in rows.split("\n") if row and not row.startswith("#")]
    return found


def _opened(path: Path, size: int) -> PackIndex | None:
    """Return the index at ``path``; None of a file that is gone, damaged or of another version."""
    try:
        return PackIndex(path, size)
    except (OSError, CorruptError):
        return None


def _has(index: PackIndex, raw: bytes) -> bool:
    """Return whether an index has the id ``raw``; a damaged one has nothing."""
    try:
        return index.find(raw) is not None
    except CorruptError:
        return False


def _look(folder: Path) -> tuple[tuple[int, ...], int]:
    """Return the state of a folder, and the time in nanoseconds from which a change leaves another one."""
    try:
        info = folder.stat()
    except OSError:
        return (), 0
    return (info.st_mtime_ns, info.st_ino), _fs.certain_from(info.st_mtime_ns, info.st_ctime_ns)
