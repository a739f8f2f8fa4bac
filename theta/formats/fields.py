"""Derived fields and their validation; :mod:`theta.formats.derived` computes them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from theta.errors import FormatError

OPERATIONS: Final = ("copy", "crc32", "crc32c-masked", "fold-decimal")
MAX_COPY: Final = 64
_WIDTHS: Final = {"crc32": 4, "crc32c-masked": 4, "fold-decimal": 20}
MAX_FOLD: Final = 8 << 20
MOST_READS: Final = 4
"""The limit of bytes that the fields of a file read, in multiples of its size.

Each level of CRCs reads a tensor once; the formats that theta reads need at most 2.
"""
SLACK: Final = 16 << 20
MOST_PARTS: Final = 4 << 20
"""The limit of fields and arguments of one file."""
_BLOCK: Final = 1024


@dataclass(frozen=True, slots=True)
class Derived:
    """A field of the skeleton that follows from other bytes of the file, such as a CRC-32.

    Fields are computed in the order of :attr:`Layout.derived`: an argument may include earlier fields,
    never later ones.

    Attributes:
        op: the operation, as listed in :mod:`theta.formats.derived`.
        offset: offset of the field in the file.
        width: length of the field in bytes.
        arguments: the (offset, length) ranges of the file whose concatenation is the argument.
        order: the byte order of a number.
    """

    op: str
    offset: int
    width: int
    arguments: tuple[tuple[int, int], ...]
    order: Literal["little", "big"] = "little"

    @property
    def end(self) -> int:
        """Offset of the first byte after the field."""
        return self.offset + self.width


def check_fields(
    size: int,
    extents: Iterable[tuple[int, int]],
    fields: Sequence[Derived],
    ranks: Sequence[int] | None = None,
) -> None:
    """Raise ``FormatError`` unless ``fields`` of a file of ``size`` bytes can be computed in their order.

    ``extents`` are the (start, end) of its tensors, ``ranks`` those of the fields, which ascend: a field
    depends on fields of lower ranks only.  By default each field has a rank of its own.  The total length of
    all arguments is checked first against the size of the file.
    """
    _check_work(size, fields)
    position = 0
    for start, end in sorted([*extents, *((field.offset, field.end) for field in fields)]):
        if start < position:
            raise FormatError(f"a derived field overlaps at byte {start}")
        position = end
    if position > size:
        raise FormatError("a derived field is outside the file")
    ranks = range(len(fields)) if ranks is None else ranks
    ordered = sorted(zip(fields, ranks, strict=True), key=lambda pair: (pair[0].offset, pair[1]))
    highest = _Ranks([rank for _, rank in ordered]).highest
    starts = [field.offset for field, _ in ordered]
    ends = [field.end for field, _ in ordered]
    for field, rank in zip(fields, ranks, strict=True):
        _check_width(field)
        for start, length in field.arguments:
            if start < 0 or length < 0 or start + length > size:
                raise FormatError("an argument of a derived field is outside the file")
            if highest(bisect_right(ends, start), bisect_left(starts, start + length)) >= rank:
                raise FormatError("a derived field depends on one that is computed later")


def _check_work(size: int, fields: Sequence[Derived]) -> None:
    count = len(fields) + sum(len(field.arguments) for field in fields)
    reads = sum(length for field in fields for _, length in field.arguments)
    folds = (field.arguments for field in fields if field.op == "fold-decimal")
    folded = sum(length for arguments in folds for _, length in arguments)
    if count > MOST_PARTS or reads > MOST_READS * size + SLACK or folded > MAX_FOLD:
        raise FormatError(f"{len(fields)} derived fields read {reads} bytes, too much for a file of {size}")


class _Ranks:
    """Range maximum queries over the ranks of fields sorted by offset."""

    def __init__(self, ranks: list[int]) -> None:
        self._ranks = ranks
        self._blocks = [max(ranks[at : at + _BLOCK]) for at in range(0, len(ranks), _BLOCK)]

    def highest(self, start: int, stop: int) -> int:
        """Return the highest rank in ``start:stop``; -1 if the range is empty."""
        first, last = -(-start // _BLOCK), stop // _BLOCK
        if first >= last:
            return max(self._ranks[start:stop], default=-1)
        edges = self._ranks[start : first * _BLOCK] + self._ranks[last * _BLOCK : stop]
        return max(*self._blocks[first:last], *edges, -1)


def _check_width(field: Derived) -> None:
    total = sum(length for _, length in field.arguments)
    if field.op not in OPERATIONS:
        raise FormatError(f"the skeleton uses the unknown operation {field.op!a}")
    width = min(total, MAX_COPY) if field.op == "copy" else _WIDTHS[field.op]
    if field.width != width or (field.op == "copy" and not 0 < total == width):
        raise FormatError(f"a derived field of operation {field.op} has {field.width} bytes")
    if field.op == "fold-decimal" and (total % 4 or total > MAX_FOLD):
        raise FormatError("the arguments of fold-decimal are not 32-bit words, or too many")
    if field.offset < 0:
        raise FormatError("a derived field is outside the file")
