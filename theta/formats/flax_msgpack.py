"""Flax's msgpack files: nested maps whose arrays are extension type 1.

The content of such an extension is msgpack again: shape, name of the dtype, the bytes in C order
(``flax/serialization.py``).  An array over 1 GiB is a map of flat chunks, each of which is a tensor here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from theta.dtypes import DTYPES
from theta.errors import FormatError
from theta.formats.cursor import Cursor
from theta.formats.layout import MAX_NAME_BYTES, MAX_RANK, MAX_SIZE, Layout, Source, Tensor, clip

NAME: Final = "flax"
MAX_DEPTH: Final = 64
_NDARRAY: Final = 1
_NAME_ALLOWANCE: Final = 16 * 2**20
_DTYPES: Final = {entry.numpy_name: name for name, entry in reversed(DTYPES.items()) if entry.numpy_name}

# First byte -> width in bytes of the length that follows it.
_TEXT: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_EXTENSION: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_ARRAY: Final = {0xDC: 2, 0xDD: 4}
_MAP: Final = {0xDE: 2, 0xDF: 4}
_FIXED: Final = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8} | {
    code: 1 << (code & 3) for code in (*range(0xCC, 0xD0), *range(0xD0, 0xD4))
}


@dataclass(frozen=True, slots=True)
class _Head:
    """The kind of a value, and its length in bytes or its number of items."""

    kind: str
    length: int


def detect(source: Source) -> bool:
    """Return whether the file starts with a non-empty map whose first key is a short printable text."""
    if source.size < 8:
        return False
    head = source.read(0, 5)
    if 0x81 <= head[0] <= 0x8F:
        at = 1
    elif head[0] == 0xDE and head[1:3] != b"\0\0":
        at = 3
    else:
        return False
    short = 0xA1 <= head[at] <= 0xBF
    if not short and head[at] != 0xD9:
        return False
    length, start = (head[at] & 0x1F, at + 1) if short else (head[at + 1], at + 2)
    try:
        return source.read(start, min(length, source.size - start)).decode().isprintable()
    except UnicodeDecodeError:
        return False


def scan(source: Source) -> Layout:
    """Return a layout of the arrays, named by their keys; raises ``FormatError`` if there are none."""
    walker = _Walker(source)
    walker.value("", 0)
    if walker.cursor.remaining:
        raise FormatError("flax: bytes behind the end")
    if not walker.tensors:
        raise FormatError("flax: no arrays")
    return Layout(NAME, source.size, tuple(walker.tensors))


class _Walker:
    def __init__(self, source: Source) -> None:
        self.cursor = Cursor(source, 0, source.size, NAME, "big")
        self.tensors: list[Tensor] = []
        self._allowance = source.size + _NAME_ALLOWANCE

    def value(self, name: str, depth: int) -> None:
        """Read one value and collect its arrays as tensors whose names start with ``name``."""
        if depth > MAX_DEPTH:
            raise FormatError("flax: nested too deeply")
        head = read_head(self.cursor)
        if head.kind == "map":
            for number in range(head.length):
                key = self._key(number)
                self.value(f"{name}.{key}" if name else key, depth + 1)
        elif head.kind == "array":
            for number in range(head.length):
                self.value(f"{name}.{number}" if name else str(number), depth + 1)
        elif head.kind == "extension":
            self._extension(name, head.length)
        else:
            self.cursor.skip(head.length)

    def _key(self, number: int) -> str:
        head = read_head(self.cursor)
        if head.kind != "text" or head.length > MAX_NAME_BYTES:
            self.cursor.skip(head.length if head.kind not in ("map", "array") else -1)
            return f"#{number}"
        key = self.cursor.take(head.length)
        self._allowance -= head.length
        return key.decode("utf-8", "replace")

    def _extension(self, name: str, length: int) -> None:
        kind = self.cursor.number(1)
        start = self.cursor.skip(length)
        if kind != _NDARRAY:
            return
        tensor = self._array(name or "array", self.cursor.part(start, length))
        self._allowance -= len(name) + 200
        if self._allowance < 0:
            raise FormatError("flax: the names are longer than the file")
        if tensor is not None:
            self.tensors.append(tensor)

    def _array(self, name: str, cursor: Cursor) -> Tensor | None:
        """Return the array in an extension; None for an unsupported dtype, which stays skeleton."""
        if read_head(cursor) != _Head("array", 3):
            raise FormatError(f"flax: {clip(name)} is not an array")
        rank = read_head(cursor)
        if rank.kind != "array" or rank.length > MAX_RANK:
            raise FormatError(f"flax: {clip(name)} has no shape")
        shape = tuple(_integer(cursor) for _ in range(rank.length))
        kind = read_head(cursor)
        if kind.kind != "text" or kind.length > 40:
            raise FormatError(f"flax: {clip(name)} has no dtype")
        dtype = _DTYPES.get(cursor.take(kind.length).decode("utf-8", "replace"))
        data = read_head(cursor)
        if data.kind != "bytes" or data.length != cursor.remaining:
            raise FormatError(f"flax: {clip(name)} has no bytes")
        return None if dtype is None else Tensor(name, dtype, shape, cursor.position, data.length)


def read_head(cursor: Cursor) -> _Head:
    """Read the head of the next value; ``length`` bytes or items follow it."""
    code = cursor.take(1)[0]
    if code <= 0x7F or code >= 0xE0:
        return _Head("number", 0)
    if code <= 0x8F:
        return _items(cursor, "map", code & 0x0F)
    if code <= 0x9F:
        return _items(cursor, "array", code & 0x0F)
    if code <= 0xBF:
        return _Head("text", code & 0x1F)
    if 0xD4 <= code <= 0xD8:
        return _Head("extension", 1 << (code - 0xD4))
    if code in _FIXED:
        return _Head("number", _FIXED[code])
    for kind, widths in (("text", _TEXT), ("bytes", _BYTES), ("extension", _EXTENSION)):
        if code in widths:
            return _Head(kind, cursor.number(widths[code]))
    for kind, widths in (("array", _ARRAY), ("map", _MAP)):
        if code in widths:
            return _items(cursor, kind, cursor.number(widths[code]))
    raise FormatError(f"flax: the byte 0x{code:02x} begins no value")


def _items(cursor: Cursor, kind: str, count: int) -> _Head:
    if count * (2 if kind == "map" else 1) > cursor.remaining:
        raise FormatError(f"flax: {count} items in {cursor.remaining} bytes")
    return _Head(kind, count)


def _integer(cursor: Cursor) -> int:
    """Read a dimension, an unsigned integer below 2**63."""
    code = cursor.take(1)[0]
    if code <= 0x7F:
        return code
    if not 0xCC <= code <= 0xCF:
        raise FormatError("flax: a dimension that is no number")
    value = cursor.number(1 << (code - 0xCC))
    if value > MAX_SIZE:
        raise FormatError("flax: a dimension that is too large")
    return value
