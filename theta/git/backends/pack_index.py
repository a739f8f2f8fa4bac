"""The index of a pack, read by memory map (gitformat-pack(5), version 2)."""

from __future__ import annotations

import mmap
import os
import struct
from bisect import bisect_left
from pathlib import Path
from typing import Final

from theta.errors import CorruptError

_MAGIC: Final = b"\xfftOc" + struct.pack(">I", 2)
_HEADER: Final = len(_MAGIC)
_ENDS: Final = struct.Struct(">2I")
_IDS: Final = _HEADER + 256 * 4
"""The place of the sorted ids: behind a table of how many ids begin with each byte or a lower one."""
_WORTH_LISTING: Final = 16
"""The objects of an index for each look-up, from which on a list of all ids takes less time."""
_LONGEST_LIST: Final = 1 << 16
"""The most ids that are listed: 4 MB."""


class PackIndex:
    """The index at ``path``, whose ids have ``size`` bytes.

    Raises :class:`CorruptError` for a damaged file or another version, and ``OSError`` for one that is gone.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._name, self._size = path.name, size
        self._data = data = memoryview(mapped(path))
        if data[:_HEADER] != _MAGIC or len(data) < _IDS + 2 * size:
            raise CorruptError(f"{path.name} is not a version 2 pack index")
        self.count: int = struct.unpack_from(">I", data, _IDS - 4)[0]
        """The number of objects."""
        if len(data) < _IDS + self.count * (size + 8) + 2 * size:
            raise CorruptError(f"{path.name} is cut short")
        self._asked = 0
        self._listed: list[bytes] | None = None

    def id(self, position: int) -> bytes:
        """Return the id at a position in the order of ids."""
        start = _IDS + self._size * position
        return bytes(self._data[start : start + self._size])

    def find(self, raw_id: bytes) -> int | None:
        """Return the position of ``raw_id``; None if it is not there."""
        first = raw_id[0]
        low, high = _ENDS.unpack_from(self._data, _HEADER + 4 * (first - 1))
        low = low if first else 0  # in front of the table there are other bytes
        if not low <= high <= self.count:
            raise CorruptError(f"{self._name}: bad fan-out table")
        ids = self._listed or self._ids()
        if ids is None:
            position = bisect_left(range(self.count), raw_id, low, high, key=self.id)
            return position if position < high and self.id(position) == raw_id else None
        position = bisect_left(ids, raw_id, low, high)
        return position if position < high and ids[position] == raw_id else None

    def _ids(self) -> list[bytes] | None:
        """Return all ids in order, where enough were looked for; None while a list would take longer."""
        self._asked += 1
        if self.count > min(_LONGEST_LIST, _WORTH_LISTING * self._asked):
            return None
        size = self._size
        whole = bytes(self._data[_IDS : _IDS + size * self.count])
        self._listed = [whole[start : start + size] for start in range(0, len(whole), size)]
        return self._listed

    def offset(self, position: int) -> int:
        """Return the offset in the pack of the object at ``position``."""
        table = _IDS + (self._size + 4) * self.count
        offset: int = struct.unpack_from(">I", self._data, table + 4 * position)[0]
        if offset >> 31:
            far = table + 4 * self.count + 8 * (offset & 0x7FFFFFFF)
            if far + 8 > len(self._data) - 2 * self._size:
                raise CorruptError(f"{self._name}: bad offset table")
            offset = struct.unpack_from(">Q", self._data, far)[0]
        return offset


def mapped(path: Path) -> mmap.mmap:
    """Map the file at ``path`` for reading; raises :class:`CorruptError` if it is empty."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise CorruptError(f"{path.name} is empty")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
