"""Buffered sequential reading of a part of a file, with checks of its end."""

from __future__ import annotations

from typing import Final, Literal

from theta.errors import FormatError
from theta.formats.layout import Source

_PIECE: Final = 64 * 1024


class Cursor:
    """A position in ``source`` from ``start`` to ``end``; ``what`` is the name of the format for errors."""

    def __init__(
        self,
        source: Source,
        start: int,
        end: int,
        what: str,
        order: Literal["little", "big"] = "little",
    ) -> None:
        if not 0 <= start <= end <= source.size:
            raise FormatError(f"{what}: truncated")
        self._source = source
        self._end = end
        self._what = what
        self._order: Literal["little", "big"] = order
        self._buffer = b""
        self._buffer_start = start
        self._at = 0

    @property
    def position(self) -> int:
        """Offset of the next byte in the source."""
        return self._buffer_start + self._at

    @property
    def remaining(self) -> int:
        """Number of bytes before the end."""
        return self._end - self._buffer_start - self._at

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes; raises ``FormatError`` beyond the end."""
        at = self._at
        self._at = at + count
        if self._at <= len(self._buffer):
            return self._buffer[at : self._at]
        return self._refill(at, count)

    def number(self, width: int) -> int:
        """Read an unsigned integer of ``width`` bytes."""
        return int.from_bytes(self.take(width), self._order)

    def skip(self, count: int) -> int:
        """Skip ``count`` bytes; return the offset of the first."""
        offset = self.position
        if not 0 <= count <= self._end - offset:
            raise FormatError(f"{self._what}: truncated")
        self._at += count
        return offset

    def part(self, start: int, length: int) -> Cursor:
        """Return a cursor over ``length`` bytes of the same source from ``start``."""
        return Cursor(self._source, start, start + length, self._what, self._order)

    def _refill(self, at: int, count: int) -> bytes:
        start = self._buffer_start + at
        if start + count > self._end:
            raise FormatError(f"{self._what}: truncated")
        self._buffer = self._source.read(start, min(max(count, _PIECE), self._end - start))
        self._buffer_start = start
        self._at = count
        return self._buffer[:count]
