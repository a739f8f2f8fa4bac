"""The steps of an entropy decoder one by one, with tables spelled out: the twin of ``coded.sections``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_native import contexts, rans, tokens
from theta_native.contexts import ContextKeys


def occurring(keys: ContextKeys) -> NDArray[np.int64]:
    """The contexts that occur, ascending."""
    seen = np.zeros(keys.numbers.size, np.uint8)
    contexts._mark(keys.parts, seen)
    return keys.seen(seen)


def named(
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    keys: ContextKeys,
    clusters: NDArray[np.uint8],
    frequencies: NDArray[np.uint32],
) -> NDArray[np.uint16] | None:
    """The token of each of ``keys``, by a table for each cluster; None if the stream is damaged."""
    count, wide = frequencies.shape
    slots = np.repeat(np.tile(np.arange(wide, dtype=np.uint16), count), frequencies.reshape(-1))
    starts = np.cumsum(frequencies, axis=1, dtype=np.uint32) - frequencies
    packed = (frequencies << np.uint32(16) | starts & np.uint32(0xFFFF)).reshape(-1)
    found = np.empty(keys.words.size, np.uint16)
    final, padded = states.astype(np.uint32), np.concatenate([words, np.zeros(4, np.uint16)])
    table = keys.table(clusters), slots, packed, np.uint64(wide)
    read = rans._decode(padded, keys.parts, table, final, found)
    return found if read == words.size and bool((final == rans.LOWER).all()) else None


def read_raw(
    named: NDArray[np.uint16], s: int, m: int, raw: NDArray[np.uint8], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], int] | None:
    """The values of tokens, and the number of bytes read from ``raw``; None if it is too short."""
    bits, limit = dtype.itemsize * 8, 8 * raw.size
    padded = np.zeros(raw.size // 4 + 4, "<u4")
    padded.view(np.uint8)[: raw.size] = raw
    values: NDArray[Any] = np.empty(named.size, dtype)
    plain = np.uint16(min(1 << s, 1 << bits) if 4 * limit < named.size else 0)
    tables = tokens.least(bits, s, m), tokens.raw_widths(bits, s, m)
    read = tokens._read_raw(named, *tables, padded, plain, np.uint64(limit), values)
    return (values, (read + 7) // 8) if read <= limit else None
