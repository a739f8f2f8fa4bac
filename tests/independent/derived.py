"""Fields of a file that follow from its other bytes (format.md, section 5.1)."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from tests.independent.primitives import require

MOST: Final = 4_194_304
"""The limit of segments, fields and places."""
_PART: Final = 2**20
_MASK: Final = 2**32 - 1


@dataclass(frozen=True)
class Field:
    """A derived field: where it is, and which bytes it follows from."""

    at: int
    width: int
    operation: str
    order: str
    rank: int
    places: list[tuple[int, int]]

    @property
    def reads(self) -> int:
        """The bytes of the arguments."""
        return sum(length for _, length in self.places)


_WIDTHS: Final[dict[str, Callable[[int], bool]]] = {
    "crc32": lambda width: width == 4,
    "crc32c-masked": lambda width: width == 4,
    "copy": lambda width: 1 <= width <= 64,
    "fold-decimal": lambda width: width == 20,
}


def check(fields: Sequence[Field], size: int) -> None:
    """Refuse fields that no file of ``size`` bytes may have; they are in the order of the file."""
    require(len(fields) + sum(len(one.places) for one in fields) <= MOST, "fields have too many places")
    require(sum(one.reads for one in fields) <= 4 * size + 16 * 2**20, "fields read too much")
    folded = sum(one.reads for one in fields if one.operation == "fold-decimal")
    require(folded <= 8 * 2**20, "fields fold too much")
    starts = [one.at for one in fields]
    for one in fields:
        require(one.operation in _WIDTHS and _WIDTHS[one.operation](one.width), "a field has a bad width")
        require(one.operation != "copy" or one.reads == one.width, "a copy has another length")
        require(one.operation != "fold-decimal" or one.reads % 4 == 0, "a fold has no whole words")
        require(all(at + many <= size for at, many in one.places), "a place leaves the file")
        covered = (fields[number] for place in one.places for number in _covered(fields, starts, *place))
        require(all(other.rank < one.rank for other in covered), "a place covers a field of no lower rank")


def _covered(fields: Sequence[Field], starts: Sequence[int], at: int, many: int) -> Iterator[int]:
    """Yield the numbers of the fields that a place touches."""
    number = max(bisect_right(starts, at) - 1, 0)
    while number < len(fields) and starts[number] < at + many:
        if starts[number] + fields[number].width > at:
            yield number
        number += 1


def fill(out: BinaryIO, fields: Sequence[Field]) -> None:
    """Compute all derived fields of a file whose other bytes are in place."""
    for one in sorted(fields, key=lambda one: one.rank):
        computed = _computed(one, _arguments(out, one))
        out.seek(one.at)
        out.write(computed)


def _arguments(out: BinaryIO, one: Field) -> Iterator[bytes]:
    """Yield the arguments in parts."""
    for at, length in one.places:
        for start in range(at, at + length, _PART):
            out.seek(start)
            yield out.read(min(_PART, at + length - start))


def _computed(one: Field, arguments: Iterable[bytes]) -> bytes:
    if one.operation == "copy":
        return b"".join(arguments)
    if one.operation == "fold-decimal":
        return b"%020d" % _folded(b"".join(arguments))
    step = zlib.crc32 if one.operation == "crc32" else _crc32c
    checksum = 0
    for part in arguments:
        checksum = step(part, checksum)
    if one.operation == "crc32c-masked":
        checksum = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & _MASK
    return checksum.to_bytes(4, "little" if one.order == "little" else "big")


def _folded(data: bytes) -> int:
    total = 0
    for at in range(0, len(data), 4):
        word = int.from_bytes(data[at : at + 4], "little")
        total ^= (word + 0x9E3779B9 + (total << 6) + (total >> 2)) & (2**64 - 1)
    return total


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        entry = byte
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        table.append(entry)
    return table


_CRC32C: Final = _crc32c_table()


def _crc32c(data: bytes, checksum: int) -> int:
    """Return the CRC-32C of the bytes before, whose checksum is given, and of these."""
    checksum ^= _MASK
    for byte in data:
        checksum = checksum >> 8 ^ _CRC32C[(checksum ^ byte) & 255]
    return checksum ^ _MASK
