"""The ground of the reader: the one error that it raises, and bytes that are read with checks."""

from __future__ import annotations

from typing import Never


class RefusedError(Exception):
    """The repository holds something that the specification does not allow; the message says what."""


def refuse(reason: str) -> Never:
    """Raise ``RefusedError``."""
    raise RefusedError(reason)


def require(holds: bool, reason: str) -> None:
    """Raise ``RefusedError`` unless something holds."""
    if not holds:
        raise RefusedError(reason)


class Cursor:
    """A place in some bytes; numbers are little-endian."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes, all of which must be there."""
        require(0 <= count <= len(self._data) - self._at, "a section is cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def uint(self, width: int) -> int:
        """Return the next unsigned integer of ``width`` bytes."""
        return int.from_bytes(self.take(width), "little")

    def uints(self, width: int, count: int) -> list[int]:
        """Return the next unsigned integers of ``width`` bytes."""
        raw = self.take(width * count)
        return [int.from_bytes(raw[at : at + width], "little") for at in range(0, len(raw), width)]

    def end(self) -> None:
        """Refuse bytes that are left over."""
        require(self._at == len(self._data), "bytes are left over behind a section")
