"""Reading protobuf's wire format (https://protobuf.dev/programming-guides/encoding) with limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from theta.errors import FormatError
from theta.formats.cursor import Cursor
from theta.formats.layout import Source

VARINT: Final = 0
BYTES: Final = 2
_FIXED64, _FIXED32 = 1, 5


@dataclass(frozen=True, slots=True)
class WireField:
    """A field of a message: ``value`` is a number, or the offset of ``length`` bytes."""

    number: int
    wire: int
    value: int
    length: int


def text(source: Source, field: WireField) -> str:
    """Return the text in ``field``, at most 64 KiB."""
    if field.length > 64 * 1024:
        raise FormatError("protobuf: a name is too long")
    return source.read(field.value, field.length).decode("utf-8", "replace")


def inside(source: Source, field: WireField) -> Cursor:
    """Return a cursor over the bytes of ``field``."""
    return Cursor(source, field.value, field.value + field.length, "protobuf")


def messages(message: Cursor, number: int = 0) -> Iterator[WireField]:
    """Yield the fields ``number`` (0 for any) of ``message`` that are bytes."""
    for field in fields(message):
        if field.wire == BYTES and number in (0, field.number):
            yield field


def fields(cursor: Cursor) -> Iterator[WireField]:
    """Yield the fields of the message that ``cursor`` is at the start of."""
    while cursor.remaining:
        key = varint(cursor)
        number, wire = key >> 3, key & 7
        if not number:
            raise FormatError("protobuf: a field without a number")
        if wire == VARINT:
            yield WireField(number, wire, varint(cursor), 0)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
            yield WireField(number, wire, cursor.skip(length), length)
        elif wire == BYTES:
            length = varint(cursor)
            yield WireField(number, wire, cursor.skip(length), length)
        else:
            raise FormatError(f"protobuf: a field of the unknown wire type {wire}")


def varint(cursor: Cursor) -> int:
    """Read a varint."""
    value = 0
    for shift in range(0, 70, 7):
        byte = cursor.take(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise FormatError("protobuf: a number of more than ten bytes")
