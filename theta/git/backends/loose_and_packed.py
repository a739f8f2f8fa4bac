"""The objects of this repository, found without git, which fetches a promised one when it is asked for it.

The files are those of gitformat-pack(5), version 2 of the index of a pack, and of loose objects.
"""

from __future__ import annotations

import mmap
from functools import cached_property
from pathlib import Path
from typing import Final

_MAGIC: Final = b"\xfftOc\0\0\0\x02"
_TABLE: Final = len(_MAGIC) + 256 * 4
"""The place of the sorted ids: behind a table of how many ids begin with each byte or a lower one."""


class ObjectFiles:
    """The ids of the objects below the directories ``places`` (that of the repository, and alternates)."""

    def __init__(self, places: list[Path], size: int) -> None:
        self._places, self._size = places, size
        self._known: dict[Path, mmap.mmap | None] = {}
        self._seen: list[tuple[int, ...]] = []

    @cached_property
    def is_partial(self) -> bool:
        """Whether a remote promised objects."""
        return any(any((place / "pack").glob("*.promisor")) for place in self._places)

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is there."""
        raw = bytes.fromhex(oid)
        if any(self._packed(index, raw) for index in self._known.values() if index is not None):
            return True
        if any((place / oid[:2] / oid[2:]).exists() for place in self._places):
            return True
        return any(self._packed(index, raw) for index in self._new())

    def _new(self) -> list[mmap.mmap]:
        """Return the indexes of packs that came since the last look."""
        seen = [_changed(place / "pack") for place in self._places]
        if seen == self._seen:
            return []
        self._seen = seen
        files = (path for place in self._places for path in (place / "pack").glob("*.idx"))
        new = {path: _mapped(path) for path in files if path not in self._known}
        self._known |= new
        return [index for index in new.values() if index is not None]

    def _packed(self, index: mmap.mmap, raw: bytes) -> bool:
        """Return whether an index has the id ``raw``, by halving."""
        low = _count(index, raw[0] - 1) if raw[0] else 0
        high = min(_count(index, raw[0]), (len(index) - _TABLE) // self._size)
        while low < high:
            middle = (low + high) // 2
            start = _TABLE + middle * self._size
            found = index[start : start + self._size]
            if found == raw:
                return True
            low, high = (middle + 1, high) if found < raw else (low, middle)
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


def _count(index: mmap.mmap, first: int) -> int:
    """Return the number of ids that begin with byte ``first`` or a lower one."""
    start = len(_MAGIC) + 4 * first
    return int.from_bytes(index[start : start + 4], "big")


def _mapped(path: Path) -> mmap.mmap | None:
    """Return the index at ``path``; None of a file that is gone or of another version."""
    try:
        with path.open("rb") as file:
            found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    return found if found[: len(_MAGIC)] == _MAGIC and len(found) > _TABLE else None


def _changed(folder: Path) -> tuple[int, ...]:
    try:
        info = folder.stat()
    except OSError:
        return ()
    return info.st_mtime_ns, info.st_ino
