"""A static range coder (rANS) for tokens in contexts (:mod:`theta_native.tokens`).

The coder is the range variant of asymmetric numeral systems (J. Duda, arXiv:1311.2540, §5):
four interleaved 32-bit states, token ``i`` in state ``i % 4``, 16-bit renormalisation,
frequencies that add up to 4096.

A state is at least ``2**16`` between tokens.  Its low 12 bits are a slot; the slots belong to the tokens in
ascending order, to each as many as its frequency.  After a token of frequency ``f``, whose first slot is
``c``, the state is ``f * (state >> 12) + slot - c``; if it is then below ``2**16``, it is shifted left by 16
bits and takes in the next word.  An encoder goes the other way, from the last token to the first, and begins
with ``2**16`` in all states: after the last token a decoder finds these there, and all words used.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Tokens = NDArray[np.uint16]
Clusters = NDArray[np.uint8]
Frequencies = NDArray[np.uint32]

PRECISION: Final = 12
TOTAL: Final = 1 << PRECISION
STATES: Final = 4
LOWER: Final = 1 << 16

_ONE, _TWO, _THREE, _FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
_ALL = np.uint64(TOTAL)
_HALF_WORD = np.uint64(0xFFFF)
_BITS12, _BITS16 = np.uint64(12), np.uint64(16)
_BITS20, _BITS44 = np.uint64(20), np.uint64(44)
_LOW12, _LOW16 = np.uint32(TOTAL - 1), np.uint32(0xFFFF)
_SHIFT12, _SHIFT16 = np.uint32(12), np.uint32(16)
_LOWER32 = np.uint32(LOWER)


@kernel
def _put(
    x: np.uint64, place: np.uint64, entries: NDArray[np.uint64], out: NDArray[np.uint16], at: np.uint64
) -> tuple[np.uint64, np.uint64]:
    # One of both states is selected, since a branch on a full word would be unpredictable; a shift by the
    # outcome takes longer.  For x below frequency * 2**20 the product is below 2**64, the quotient exact.
    entry = place << _TWO
    out[at - _ONE] = np.uint16(x & _HALF_WORD)
    is_full, shorter = x >= entries[entry], x >> _BITS16
    x = shorter if is_full else x
    quotient = (x * entries[entry + _TWO]) >> _BITS44
    return x + entries[entry + _ONE] + quotient * entries[entry + _THREE], at - np.uint64(is_full)


@kernel
def _encode(
    places: Tokens, entries: NDArray[np.uint64], states: NDArray[np.uint64], out: NDArray[np.uint16]
) -> int:
    at = np.uint64(out.size)
    i = np.uint64(places.size)
    while i & _THREE:
        i -= _ONE
        states[i & _THREE], at = _put(states[i & _THREE], np.uint64(places[i]), entries, out, at)
    a, b, c, d = states[0], states[1], states[2], states[3]
    while i:
        i -= _FOUR
        d, at = _put(d, np.uint64(places[i + _THREE]), entries, out, at)
        c, at = _put(c, np.uint64(places[i + _TWO]), entries, out, at)
        b, at = _put(b, np.uint64(places[i + _ONE]), entries, out, at)
        a, at = _put(a, np.uint64(places[i]), entries, out, at)
    states[0], states[1], states[2], states[3] = a, b, c, d
    return int(at)


@kernel
def _step(
    x: np.uint32, cluster: np.uint8, wide: np.uint64, slots: Tokens, packed: Frequencies
) -> tuple[np.uint16, np.uint32]:
    slot = x & _LOW12
    token = slots[(np.uint64(cluster) << _BITS12) | np.uint64(slot)]
    entry = packed[np.uint64(cluster) * wide + np.uint64(token)]
    product = np.uint32(np.uint32(entry >> _SHIFT16) * np.uint32(x >> _SHIFT12))
    return token, np.uint32(product + slot - np.uint32(entry & _LOW16))


@kernel
def _refill(x: np.uint32, word: np.uint16, at: np.uint64) -> tuple[np.uint32, np.uint64]:
    # Both results are computed and one is selected, because a branch would be unpredictable.
    is_low = x < _LOWER32
    refilled = np.uint32(np.uint32(x << _SHIFT16) | np.uint32(word))
    return (refilled if is_low else x), at + np.uint64(is_low)


@kernel
def _decode(
    words: NDArray[np.uint16],
    keyed: tuple[Tokens, np.uint64, np.uint64, Clusters, int],
    table: tuple[Clusters, Tokens, Frequencies, np.uint64],
    states: NDArray[np.uint32],
    tokens: Tokens,
) -> int:
    # The last block alone may have a number of elements that is not a multiple of four.
    keys, shift, mask, levels, block = keyed
    clusters, slots, packed, wide = table
    # The last four of `words` are padding: four states are refilled between two checks.
    at, size = np.uint64(0), np.uint64(words.size - 4)
    a, b, c, d = states[0], states[1], states[2], states[3]
    i, level = np.uint64(0), np.uint64(0)
    for number in range(levels.size):
        level = np.uint64(levels[number]) * (mask + _ONE)
        end = np.uint64(min((number + 1) * block, tokens.size & ~3))
        while i < end:
            # Nothing is stored before all is loaded: the compiler cannot know that it is not the same memory.
            one = clusters[level + ((np.uint64(keys[i]) >> shift) & mask)]
            two = clusters[level + ((np.uint64(keys[i + _ONE]) >> shift) & mask)]
            three = clusters[level + ((np.uint64(keys[i + _TWO]) >> shift) & mask)]
            four = clusters[level + ((np.uint64(keys[i + _THREE]) >> shift) & mask)]
            first, a = _step(a, one, wide, slots, packed)
            second, b = _step(b, two, wide, slots, packed)
            third, c = _step(c, three, wide, slots, packed)
            fourth, d = _step(d, four, wide, slots, packed)
            tokens[i], tokens[i + _ONE] = first, second
            tokens[i + _TWO], tokens[i + _THREE] = third, fourth
            a, at = _refill(a, words[at], at)
            b, at = _refill(b, words[at], at)
            c, at = _refill(c, words[at], at)
            d, at = _refill(d, words[at], at)
            if at > size:
                return int(at)
            i += _FOUR
    states[0], states[1], states[2], states[3] = a, b, c, d
    while i < np.uint64(tokens.size):
        cluster = clusters[level + ((np.uint64(keys[i]) >> shift) & mask)]
        tokens[i], x = _step(states[i & _THREE], cluster, wide, slots, packed)
        states[i & _THREE], at = _refill(x, words[at], at)
        i += _ONE
    return int(at)


@kernel
def _write(
    places: Tokens,
    table: Frequencies,
    entries: NDArray[np.uint64],
    states: NDArray[np.uint64],
    out: NDArray[np.uint16],
) -> int:
    # An entry has from where on a state is full, what is added to it, the reciprocal, and a factor.
    at = 0
    for k in range(table.shape[0]):
        start = np.uint64(0)
        for token in range(table.shape[1]):
            own = np.uint64(table[k, token])
            divisor = max(own, _ONE)
            entries[at], entries[at + 1] = own << _BITS20, start
            entries[at + 2] = ((_ONE << _BITS44) + divisor - _ONE) // divisor
            entries[at + 3] = _ALL - own
            start += own
            at += 4
    return _encode(places, entries, states, out)


def encode(places: Tokens, frequencies: Frequencies) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """Encode ``places``; return the four final states and the 16-bit words in the order they are read.

    Place ``p`` is one of ``frequencies``, row by row.  Each row adds up to 4096 and has no zero for a token
    that occurs.
    """
    states, out = np.full(STATES, LOWER, np.uint64), np.empty(places.size + 2, np.uint16)
    entries = np.empty(4 * frequencies.size, np.uint64)
    at = _write(places, frequencies, entries, states, out)
    return states.astype(np.uint32), out[at:]
