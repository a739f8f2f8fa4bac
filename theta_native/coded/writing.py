"""Values in clusters of contexts, from their tokens to the parts of an entropy section.

The format is that of ``theta.codecs.entropy``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel, rans, tokens
from theta_native.contexts import ContextKeys
from theta_native.rans import Frequencies, Tokens

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint8, uint16, uint32 or uint64."""
Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

_TOTAL: Final = rans.TOTAL
_HALF: Final = 2.0**52 + 2.0**51
"""A number to which a smaller one is added to round it: the halves to even."""
_tally: Final = tokens._tally
_rans: Final = rans._write


@kernel
def _scale(sums: Integers, table: Frequencies) -> None:
    # Scale the counts of each row to add up to 4096, with at least 1 for each token that occurs.
    for k in range(sums.shape[0]):
        total, excess = np.int64(0), np.int64(-_TOTAL)
        for token in range(sums.shape[1]):
            total += sums[k, token]
        if total == 0:  # of a cluster that no value is in
            table[k, :] = 0
            table[k, 0] = _TOTAL
            continue
        factor = _TOTAL / total
        for token in range(sums.shape[1]):
            scaled = np.int64((sums[k, token] * factor + _HALF) - _HALF)
            scaled = max(scaled, np.int64(1)) if sums[k, token] > 0 else np.int64(0)
            table[k, token] = scaled
            excess += scaled
        while excess != 0:
            largest = 0
            for token in range(sums.shape[1]):
                if table[k, token] > table[k, largest]:
                    largest = token
            before = np.int64(table[k, largest])
            after = max(before - excess, (before + 1) // 2)
            table[k, largest] = after
            excess += after - before


@kernel
def _write(
    places: Tokens,
    widths: Bytes,
    rooms: tuple[Frequencies, Integers, Frequencies, NDArray[np.uint64]],
    states: NDArray[np.uint64],
    out: Tokens,
    listed: tuple[Tokens, Bytes],
    found: Integers,
) -> None:
    # `listed` are how many tokens each cluster has, and the low and high bytes of their frequencies; `found`
    # are where the stream begins, how many frequencies there are, and how many raw bits.
    four, counts, table, entries = rooms
    used, halves = listed
    wide = counts.shape[1]
    _tally(places, four)
    bits, number = np.int64(0), 0
    for k in range(counts.shape[0]):
        for token in range(wide):
            at = k * wide + token
            counts[k, token] = np.int64(four[0, at]) + four[1, at] + four[2, at] + four[3, at]
            bits += counts[k, token] * widths[token]
    _scale(counts, table)
    for k in range(counts.shape[0]):
        last = wide
        while last > 0 and table[k, last - 1] == 0:
            last -= 1
        used[k] = last
        number += last
    at = 0
    for k in range(counts.shape[0]):
        for token in range(used[k]):
            halves[at] = table[k, token] & 0xFF
            halves[number + at] = table[k, token] >> 8
            at += 1
    found[0], found[1], found[2] = _rans(places, table, entries, states, out), number, bits


class Written(NamedTuple):
    """The parts of an entropy section.

    Attributes:
        states: the four states of the rANS decoder.
        words: its stream.
        used: the number of tokens of each cluster.
        low: the low bytes of their frequencies.
        high: the high bytes.
        raw_bits: the raw bits of all values, lowest bit first.
        occurring: the contexts that occur, ascending.
    """

    states: NDArray[np.uint64]
    words: Tokens
    used: Tokens
    low: Bytes
    high: Bytes
    raw_bits: Bytes
    occurring: Integers


def scaled(sums: Integers) -> Frequencies:
    """Scale counts to add up to 4096 in each row, with at least 1 for each token that occurs."""
    table = np.empty(sums.shape, np.uint32)
    _scale(sums, table)
    return table


def write(values: Words, keys: ContextKeys, rule: tuple[int, int], clusters: Bytes) -> Written:
    """Write ``values``, where ``clusters`` has the cluster (at most 63) of each context of ``keys``."""
    placed = tokens.places(values, keys, rule, clusters)
    count, wide = int(clusters.max()) + 1, placed.widths.size
    shape = count, wide
    rooms = (
        *(np.zeros((4, count * wide), np.uint32), np.empty(shape, np.int64)),
        *(np.empty(shape, np.uint32), np.empty(4 * count * wide, np.uint64)),
    )
    states, out = np.full(rans.STATES, rans.LOWER, np.uint64), np.empty(values.size + 2, np.uint16)
    used, halves = np.empty(count, np.uint16), np.empty(2 * count * wide, np.uint8)
    found = np.empty(3, np.int64)
    _write(placed.places, placed.widths, rooms, states, out, (used, halves), found)
    at, number, bits = found.tolist()
    return Written(
        states,
        out[at:],
        used,
        halves[:number],
        halves[number : 2 * number],
        placed.raw_bits(bits),
        keys.seen(placed.seen),
    )
