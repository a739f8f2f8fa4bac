"""Computing derived fields: skeleton bytes that follow from other bytes by a fixed set of operations.

The operations are part of theta's storage format and independent of containers:

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

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from theta._kernels import crc32c, zlib_ng
from theta.errors import FormatError
from theta.formats.fields import Derived
from theta.formats.layout import Layout, Source

_PIECE: Final = 1024 * 1024


def derive(field: Derived, chunks: Iterable[bytes]) -> bytes:
    """Compute the ``field.width`` bytes of ``field``; ``chunks`` are its arguments in any pieces."""
    if field.op == "crc32":
        value = 0
        for chunk in chunks:
            value = zlib_ng.crc32(chunk, value)
        return value.to_bytes(4, field.order)
    if field.op == "copy":
        return b"".join(chunks)
    if field.op == "crc32c-masked":
        return _masked(chunks).to_bytes(4, field.order)
    if field.op == "fold-decimal":
        return _fold(b"".join(chunks))
    raise FormatError(f"the skeleton uses the unknown operation {field.op!a}")


def arguments(field: Derived, source: Source) -> Iterator[bytes]:
    """Yield the arguments of ``field`` in ``source`` in pieces of at most 1 MiB."""
    for start, length in field.arguments:
        for offset in range(start, start + length, _PIECE):
            yield source.read(offset, min(_PIECE, start + length - offset))


def prove(layout: Layout, source: Source) -> Layout:
    """Return ``layout`` without the derived fields whose value in ``source`` is not the computed one.

    These become literal bytes.  A reader only claims that a field is derived: a file may have no CRCs or
    wrong ones, and must be restored unchanged.  Every argument is read once.
    """
    kept = [
        field
        for field in layout.derived
        if derive(field, arguments(field, source)) == source.read(field.offset, field.width)
    ]
    return layout if len(kept) == len(layout.derived) else replace(layout, derived=tuple(kept))


def _masked(chunks: Iterable[bytes]) -> int:
    value = 0
    for chunk in chunks:
        value = crc32c.crc32c(chunk, value)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFF_FFFF


def _fold(words: bytes) -> bytes:
    state = 0
    for at in range(0, len(words), 4):
        word = int.from_bytes(words[at : at + 4], "little")
        state = (state ^ (word + 0x9E3779B9 + (state << 6) + (state >> 2))) & 0xFFFF_FFFF_FFFF_FFFF
    return b"%020d" % state
