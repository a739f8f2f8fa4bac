"""Derived fields: skeleton bytes that follow from other bytes, in a closed list of operations.

The operations are part of theta's storage format, and know nothing of any container:

``crc32``
    CRC-32 (ISO-HDLC, the one of zip and zlib) of the arguments, 4 bytes in ``order``.
``crc32c-masked``
    CRC-32C (Castagnoli) of the arguments, rotated right by 15 bits, plus 0xa282ead8 mod 2**32 (LevelDB's
    mask), 4 bytes in ``order``.
``copy``
    The arguments themselves; at most 64 bytes.
``fold-decimal``
    The arguments are 32-bit little-endian words v; from s = 0, for each
    ``s = s XOR (v + 0x9e3779b9 + (s << 6) + (s >> 2))`` mod 2**64 (boost's hash_combine); the
    20 decimal digits of s in ASCII.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from theta.errors import FormatError
from theta.formats.layout import Derived, Layout, Source

OPERATIONS: Final = ("copy", "crc32", "crc32c-masked", "fold-decimal")
MAX_COPY: Final = 64
_WIDTHS: Final = {"crc32": 4, "crc32c-masked": 4, "fold-decimal": 20}
_PIECE: Final = 1024 * 1024
MAX_FOLD: Final = 8 << 20
MOST_READS: Final = 4
"""How often the fields of a file may read all of it: once for each CRC that covers a tensor, and one to spare
for files in files. Of the formats that theta reads none needs more than 2."""
SLACK: Final = 16 << 20
MOST_PARTS: Final = 4 << 20
"""Fields and arguments of one file."""
_BLOCK: Final = 1024


def derive(field: Derived, chunks: Iterable[bytes]) -> bytes:
    """The ``field.width`` bytes of ``field``; ``chunks`` are its arguments in pieces of any length."""
    if field.op == "crc32":
        value = 0
        for chunk in chunks:
            value = zlib.crc32(chunk, value)
        return value.to_bytes(4, field.order)
    if field.op == "copy":
        return b"".join(chunks)
    if field.op == "crc32c-masked":
        return _masked(chunks).to_bytes(4, field.order)
    if field.op == "fold-decimal":
        return _fold(b"".join(chunks))
    raise FormatError(f"the skeleton uses the unknown operation {field.op!a}")


def arguments(field: Derived, source: Source) -> Iterator[bytes]:
    """The arguments of ``field`` in ``source``, in pieces of at most 1 MiB."""
    for start, length in field.arguments:
        for offset in range(start, start + length, _PIECE):
            yield source.read(offset, min(_PIECE, start + length - offset))


def prove(layout: Layout, source: Source) -> Layout:
    """``layout`` with those derived fields only that hold in ``source``; the others become literal.

    Reads every argument once.  A reader only claims that a field is derived: a file may be written
    without CRCs, or with wrong ones, and is restored as it was.
    """
    kept = [
        field
        for field in layout.derived
        if derive(field, arguments(field, source)) == source.read(field.offset, field.width)
    ]
    return layout if len(kept) == len(layout.derived) else replace(layout, derived=tuple(kept))


def check_fields(layout: Layout) -> None:
    """Raise ``FormatError`` unless the derived fields of ``layout`` can be computed in their order.

    What they read altogether is bounded by the size of the file, and looked at first.
    """
    _check_work(layout)
    taken = [(tensor.offset, tensor.end) for tensor in layout.tensors if tensor.length]
    taken += [(field.offset, field.end) for field in layout.derived]
    position = 0
    for start, end in sorted(taken):
        if start < position:
            raise FormatError(f"a derived field overlaps at byte {start}")
        position = end
    if position > layout.size:
        raise FormatError("a derived field is outside the file")
    ordered = sorted((field.offset, rank) for rank, field in enumerate(layout.derived))
    ranks = _Ranks([rank for _, rank in ordered])
    starts = [start for start, _ in ordered]
    ends = [layout.derived[rank].end for _, rank in ordered]
    for rank, field in enumerate(layout.derived):
        _check_width(field)
        for start, length in field.arguments:
            if start < 0 or length < 0 or start + length > layout.size:
                raise FormatError("an argument of a derived field is outside the file")
            if ranks.highest(bisect_right(ends, start), bisect_left(starts, start + length)) >= rank:
                raise FormatError("a derived field depends on one that is computed later")


def _check_work(layout: Layout) -> None:
    count = len(layout.derived) + sum(len(field.arguments) for field in layout.derived)
    reads = sum(length for field in layout.derived for _, length in field.arguments)
    folds = (f.arguments for f in layout.derived if f.op == "fold-decimal")
    folded = sum(length for arguments_ in folds for _, length in arguments_)
    if count > MOST_PARTS or reads > MOST_READS * layout.size + SLACK or folded > MAX_FOLD:
        raise FormatError(
            f"{len(layout.derived)} derived fields read {reads} bytes, too much for a file of {layout.size}"
        )


class _Ranks:
    """The ranks of fields in the order of their places; answers for many ranges of them."""

    def __init__(self, ranks: list[int]) -> None:
        self._ranks = ranks
        self._blocks = [max(ranks[at : at + _BLOCK]) for at in range(0, len(ranks), _BLOCK)]

    def highest(self, start: int, stop: int) -> int:
        """The highest rank from ``start`` to before ``stop``; -1 where there is none."""
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
    if field.width != width or (field.op == "copy" and total != width):
        raise FormatError(f"a derived field of operation {field.op} has {field.width} bytes")
    if field.op == "fold-decimal" and (total % 4 or total > MAX_FOLD):
        raise FormatError("the arguments of fold-decimal are not 32-bit words, or too many")
    if field.offset < 0:
        raise FormatError("a derived field is outside the file")


def _masked(chunks: Iterable[bytes]) -> int:
    from theta_native.crc32c import crc32c

    value = 0
    for chunk in chunks:
        value = crc32c(chunk, value)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFF_FFFF


def _fold(words: bytes) -> bytes:
    state = 0
    for at in range(0, len(words), 4):
        word = int.from_bytes(words[at : at + 4], "little")
        state = (state ^ (word + 0x9E3779B9 + (state << 6) + (state >> 2))) & 0xFFFF_FFFF_FFFF_FFFF
    return b"%020d" % state
