"""Opaque files, which no reader detects: one tensor of bytes, stored in content-defined chunks.

The cut points are part of theta's storage format:

* ``gear[b]`` is the first 8 bytes of SHA-256 of the 11 bytes ``"theta gear" + chr(b)``, little-endian,
  for each byte value ``b``.
* The hash after a byte is over that byte and the 63 before it: with ``x[0]`` the last byte, ``x[1]`` the
  one before it and so on, ``h = (sum of gear[x[j]] * 2**j for j = 0..63) mod 2**64``.
* Chunks are cut from the file's beginning, one after the other.  A chunk ends after the first byte that
  makes it at least ``MIN_CHUNK`` = 262,144 bytes long and whose ``h < THRESHOLD`` = floor(2**64 / 786,432)
  = 23,456,248,059,221; it ends at ``MAX_CHUNK`` = 4,194,304 bytes when there is no such byte, and at the
  end of the file in any case.

The first hash that is compared is over the 64 bytes that end at byte 262,144, so it never depends on bytes
before its own chunk.  Chunks of random data have 1,019 KiB on average.  All chunks of a file of zeros have
4 MiB, because ``gear[0] * (2**64 - 1) mod 2**64`` is not below the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from theta._kernels import gear
from theta.formats.layout import Layout, Source, Tensor

NAME: Final = "opaque"
TENSOR_NAME: Final = "data"
MIN_CHUNK: Final = 256 * 1024
MAX_CHUNK: Final = 4 * 1024 * 1024
WINDOW: Final = 64
THRESHOLD: Final = 2**64 // (768 * 1024)
_PIECE: Final = 256 * 1024


def scan(source: Source) -> Layout:
    """Return a layout with the whole file as one tensor ``data`` of dtype ``bytes``."""
    return Layout(NAME, source.size, (Tensor(TENSOR_NAME, "bytes", (source.size,), 0, source.size),))


def cut(source: Source) -> Iterator[int]:
    """Yield the lengths of the chunks of ``source``, whose sum is its size; reads 256 KiB at a time."""
    start = 0
    while start < source.size:
        length = _next_length(source, start)
        yield length
        start += length


def _next_length(source: Source, start: int) -> int:
    limit = min(MAX_CHUNK, source.size - start)
    if limit <= MIN_CHUNK:
        return limit
    position = MIN_CHUNK - WINDOW
    while limit - position >= WINDOW:
        piece = source.read(start + position, min(_PIECE, limit - position))
        found = gear.find(piece, THRESHOLD)
        if found >= 0:
            return position + found + 1
        position += len(piece) - WINDOW + 1
    return limit
