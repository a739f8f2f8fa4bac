"""The objects of this repository, found without git, which fetches a promised one when it is asked for it.

The files are those of gitformat-pack(5), version 2 of the index of a pack, and of loose objects.
"""

from __future__ import annotations

import zlib
from functools import cached_property
from pathlib import Path
from typing import Final

from theta.errors import CorruptError
from theta.git.backends.pack_index import PackIndex

_PIECE: Final = 1 << 20


class ObjectFiles:
    """The ids of the objects below the directories ``places`` (that of the repository, and alternates)."""

    def __init__(self, places: list[Path], size: int) -> None:
        self._places, self._size = places, size
        self._known: dict[Path, PackIndex | None] = {}
        self._seen: list[tuple[int, ...]] = []

    @cached_property
    def is_partial(self) -> bool:
        """Whether a remote promised objects."""
        return any(any((place / "pack").glob("*.promisor")) for place in self._places)

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is there."""
        raw = bytes.fromhex(oid)
        if any(_has(index, raw) for index in self._known.values() if index is not None):
            return True
        if any((place / oid[:2] / oid[2:]).exists() for place in self._places):
            return True
        return any(_has(index, raw) for index in self._new())

    def is_cut_short(self, oid: str) -> bool:
        """Return whether object ``oid`` is a loose one whose file ends too early, and no pack has it.

        libgit2 (1.9) reads such a file for ever; a power failure leaves one, as git by default syncs none.
        """
        raw = bytes.fromhex(oid)
        if not any(_ends_early(place / oid[:2] / oid[2:]) for place in self._places):
            return False
        return not any(_has(index, raw) for index in (*self._known.values(), *self._new()) if index)

    def _new(self) -> list[PackIndex]:
        """Return the indexes of packs that came since the last look."""
        seen = [_changed(place / "pack") for place in self._places]
        if seen == self._seen:
            return []
        self._seen = seen
        files = (path for place in self._places for path in (place / "pack").glob("*.idx"))
        new = {path: _opened(path, self._size) for path in files if path not in self._known}
        self._known |= new
        return [index for index in new.values() if index is not None]


def _ends_early(path: Path) -> bool:
    """Return whether a loose object lacks its end; False of one that is missing or damaged otherwise."""
    unpack = zlib.decompressobj()
    try:
        with path.open("rb", buffering=0) as file:
            while not unpack.eof:
                piece = unpack.unconsumed_tail or file.read(_PIECE)
                if not piece:
                    return True
                unpack.decompress(piece, _PIECE)
    except (OSError, zlib.error):
        pass
    return False


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


def _changed(folder: Path) -> tuple[int, ...]:
    try:
        info = folder.stat()
    except OSError:
        return ()
    return info.st_mtime_ns, info.st_ino
