"""A static range coder (rANS) for tokens in contexts, and the conversion of values to tokens.

A value below ``2**s`` is its own token.  A larger one, of ``n + 1`` bits, has the token
``2**s + (n - s) * 2**m + t``, where ``t`` are the ``m`` bits below its highest bit, and ``n - m`` raw bits
that are not modelled.

The coder is the range variant of asymmetric numeral systems (J. Duda, arXiv:1311.2540, §5):
four interleaved 32-bit states, token ``i`` in state ``i % 4``, 16-bit renormalisation,
frequencies that add up to 4096.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint8, uint16, uint32 or uint64."""
Tokens = NDArray[np.uint16]
Clusters = NDArray[np.uint8]
Frequencies = NDArray[np.uint32]

PRECISION: Final = 12
TOTAL: Final = 1 << PRECISION
STATES: Final = 4
LOWER: Final = 1 << 16

_ONE = np.uint64(1)
_ALL = np.uint64(TOTAL)
_HALF_WORD = np.uint64(0xFFFF)
_WORD = np.uint64(32)
_BITS4, _BITS16, _BITS20, _BITS44 = np.uint64(4), np.uint64(16), np.uint64(20), np.uint64(44)
_LOW12, _LOW16 = np.uint32(TOTAL - 1), np.uint32(0xFFFF)
_SHIFT12, _SHIFT16 = np.uint32(12), np.uint32(16)
_LOWER32 = np.uint32(LOWER)


def alphabet(bits: int, s: int, m: int) -> int:
    """Return the number of tokens for values of ``bits`` bits."""
    return min(1 << s, 1 << bits) + (max(bits - s, 0) << m)


@kernel
def _tokenise(
    values: Words, s: int, m: int, tokens: Tokens, histogram: NDArray[np.uint32], contexts: Tokens
) -> None:
    direct, first, kept = np.uint64(1 << s), np.uint64(s), np.uint64(m)
    wide, counts = np.uint64(histogram.shape[1]), histogram.reshape(-1)
    for i in range(values.size):
        token = np.uint64(values[i])
        if token >= direct:
            n, rest = first, token >> (first + _ONE)
            while rest:
                rest >>= _ONE
                n += _ONE
            top = (token >> (n - kept)) & ((_ONE << kept) - _ONE)
            token = direct + ((n - first) << kept) + top
        tokens[i] = token
        counts[np.uint64(contexts[i]) * wide + token] += np.uint32(1)


@kernel
def _write_raw(
    values: Words, tokens: Tokens, widths: NDArray[np.uint8], rare: bool, out: Frequencies
) -> None:
    # Here and below: a branch on whether there are raw bits is faster only if they are rare.
    held, count, at = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(values.size):
        width, v = np.uint64(widths[tokens[i]]), np.uint64(values[i])
        if rare and not width:
            continue
        if width > _WORD:
            held |= (v & ((_ONE << _WORD) - _ONE)) << count
            out[at] = np.uint32(held & ((_ONE << _WORD) - _ONE))
            at += _ONE
            held >>= _WORD
            v >>= _WORD
            width -= _WORD
        held |= (v & ((_ONE << width) - _ONE)) << count
        count += width
        if count >= _WORD:
            out[at] = np.uint32(held & ((_ONE << _WORD) - _ONE))
            at += _ONE
            held >>= _WORD
            count -= _WORD
    if count:
        out[at] = np.uint32(held)


@kernel
def _read_raw(
    tokens: Tokens,
    starts: NDArray[np.uint64],
    widths: NDArray[np.uint8],
    raw: Frequencies,
    rare: bool,
    limit: int,
    values: Words,
) -> int:
    # Return the number of bits read; more than `limit` (of `raw` without its last 12 bytes) means damage.
    position: Any = 0
    for i in range(tokens.size):
        token = tokens[i]
        width, start = np.int64(widths[token]), starts[token]
        if rare and not width:
            values[i] = start
            continue
        k, shift = position >> 5, np.uint64(position & 31)
        position += width
        if position > limit:
            return int(position)
        low = width if width < 32 else 32
        pair = np.uint64(raw[k]) | (np.uint64(raw[k + 1]) << np.uint64(32))
        v = start + ((pair >> shift) & ((_ONE << np.uint64(low)) - _ONE))
        if width > 32:
            pair = np.uint64(raw[k + 1]) | (np.uint64(raw[k + 2]) << np.uint64(32))
            v += ((pair >> shift) & ((_ONE << np.uint64(width - 32)) - _ONE)) << np.uint64(32)
        values[i] = v
    return int(position)


@kernel
def _put(
    x: np.uint64,
    place: np.uint64,
    packed: Frequencies,
    reciprocals: NDArray[np.uint64],
    out: NDArray[np.uint16],
    at: np.uint64,
) -> tuple[np.uint64, np.uint64]:
    # There is no branch on a full word: it is unpredictable and would cost more than the rest.
    # For x below frequency * 2**20 the product is below 2**64 and the quotient is exact.
    entry = np.uint64(packed[place])
    frequency = entry >> _BITS16
    out[at - _ONE] = np.uint16(x & _HALF_WORD)
    full = np.uint64(x >= frequency << _BITS20)
    x >>= full << _BITS4
    quotient = (x * reciprocals[place]) >> _BITS44
    return x + (entry & _HALF_WORD) + quotient * (_ALL - frequency), at - full


@kernel
def _encode(
    tokens: Tokens,
    contexts: Tokens,
    table: tuple[Clusters, np.uint64, Frequencies, NDArray[np.uint64]],
    states: NDArray[np.uint64],
    out: NDArray[np.uint16],
) -> int:
    lookup, wide, packed, reciprocals = table
    at = np.uint64(out.size)
    for i in range(tokens.size - 1, (tokens.size & ~3) - 1, -1):
        place = np.uint64(lookup[contexts[i]]) * wide + np.uint64(tokens[i])
        states[i & 3], at = _put(states[i & 3], place, packed, reciprocals, out, at)
    a, b, c, d = states[0], states[1], states[2], states[3]
    for k in range((tokens.size >> 2) - 1, -1, -1):
        t, g = tokens[4 * k : 4 * k + 4], contexts[4 * k : 4 * k + 4]
        place = np.uint64(lookup[g[3]]) * wide + np.uint64(t[3])
        d, at = _put(d, place, packed, reciprocals, out, at)
        place = np.uint64(lookup[g[2]]) * wide + np.uint64(t[2])
        c, at = _put(c, place, packed, reciprocals, out, at)
        place = np.uint64(lookup[g[1]]) * wide + np.uint64(t[1])
        b, at = _put(b, place, packed, reciprocals, out, at)
        place = np.uint64(lookup[g[0]]) * wide + np.uint64(t[0])
        a, at = _put(a, place, packed, reciprocals, out, at)
    states[0], states[1], states[2], states[3] = a, b, c, d
    return int(at)


@kernel
def _slots(frequencies: Frequencies, slots: NDArray[np.uint16]) -> None:
    for c in range(frequencies.shape[0]):
        at = 0
        for token in range(frequencies.shape[1]):
            for _ in range(frequencies[c, token]):
                slots[c, at] = token
                at += 1


@kernel
def _step(
    x: np.uint32, cluster: np.uint8, wide: np.uint64, slots: Tokens, packed: Frequencies
) -> tuple[np.uint16, np.uint32]:
    slot = x & _LOW12
    token = slots[np.uint64(cluster) * _ALL + np.uint64(slot)]
    entry = packed[np.uint64(cluster) * wide + np.uint64(token)]
    return token, (entry >> _SHIFT16) * (x >> _SHIFT12) + slot - (entry & _LOW16)


@kernel
def _refill(x: np.uint32, words: NDArray[np.uint16], at: np.uint64) -> tuple[np.uint32, np.uint64]:
    # Both results are computed and one is selected, because a branch would be unpredictable.
    is_low = x < _LOWER32
    refilled = (x << _SHIFT16) | np.uint32(words[at])
    return (refilled if is_low else x), at + np.uint64(is_low)


@kernel
def _decode(
    words: NDArray[np.uint16],
    contexts: Tokens,
    table: tuple[Clusters, Tokens, Frequencies, np.uint64],
    states: NDArray[np.uint32],
    tokens: Tokens,
) -> int:
    lookup, slots, packed, wide = table
    # The last four of `words` are padding: four states are refilled between two checks.
    at, size = np.uint64(0), np.uint64(words.size - 4)
    a, b, c, d = states[0], states[1], states[2], states[3]
    for k in range(tokens.size >> 2):
        t, g = tokens[4 * k : 4 * k + 4], contexts[4 * k : 4 * k + 4]
        t[0], a = _step(a, lookup[g[0]], wide, slots, packed)
        t[1], b = _step(b, lookup[g[1]], wide, slots, packed)
        t[2], c = _step(c, lookup[g[2]], wide, slots, packed)
        t[3], d = _step(d, lookup[g[3]], wide, slots, packed)
        a, at = _refill(a, words, at)
        b, at = _refill(b, words, at)
        c, at = _refill(c, words, at)
        d, at = _refill(d, words, at)
        if at > size:
            return int(at)
    states[0], states[1], states[2], states[3] = a, b, c, d
    for i in range(tokens.size & ~3, tokens.size):
        tokens[i], x = _step(states[i & 3], lookup[contexts[i]], wide, slots, packed)
        states[i & 3], at = _refill(x, words, at)
    return int(at)


def tokenise(
    values: Words, s: int, m: int, contexts: Tokens, context_count: int
) -> tuple[Tokens, NDArray[np.uint32]]:
    """Return the tokens of ``values``, and their counts of shape ``(context_count, alphabet)``.

    ``contexts`` has a number below ``context_count`` for every value.
    """
    tokens = np.empty(values.size, np.uint16)
    histogram = np.zeros((context_count, alphabet(values.dtype.itemsize * 8, s, m)), np.uint32)
    _tokenise(values, s, m, tokens, histogram, contexts)
    return tokens, histogram


def raw_widths(bits: int, s: int, m: int) -> NDArray[np.uint8]:
    """Return the number of raw bits of each token for values of ``bits`` bits."""
    widths = np.zeros(alphabet(bits, s, m), np.uint8)
    large = np.arange(max(widths.size - (1 << s), 0))
    widths[1 << s :] = s + (large >> m) - m
    return widths


def _least(bits: int, s: int, m: int) -> NDArray[np.uint64]:
    """Return the smallest value of each token."""
    least = np.arange(alphabet(bits, s, m), dtype=np.uint64)
    large = np.arange(max(least.size - (1 << s), 0), dtype=np.uint64)
    tops = (_ONE << np.uint64(m)) | (large & np.uint64((1 << m) - 1))
    least[1 << s :] = tops << raw_widths(bits, s, m)[1 << s :].astype(np.uint64)
    return least


def coarser(bits: int, fine: tuple[int, int], rule: tuple[int, int]) -> Tokens:
    """Map each token of the rule ``fine`` to one of ``rule``, whose s and m are not larger; ascending."""
    starts = _least(bits, *rule)
    names = np.searchsorted(starts, _least(bits, *fine), side="right") - 1
    return names.astype(np.uint16)


def write_raw(values: Words, tokens: Tokens, widths: NDArray[np.uint8], raw_bits: int) -> NDArray[np.uint8]:
    """Return the raw bits of all values, ``widths[token]`` of each, starting at the lowest bit of byte 0."""
    out = np.zeros(raw_bits // 32 + 1, "<u4")
    _write_raw(values, tokens, widths, _is_rare(raw_bits, values.size), out)
    return out.view(np.uint8)[: (raw_bits + 7) // 8]


def read_raw(
    tokens: Tokens, s: int, m: int, raw: NDArray[np.uint8], dtype: np.dtype[Any]
) -> tuple[Words, int] | None:
    """Return the values of ``tokens`` and the number of bytes read from ``raw``; None if it is too short."""
    padded = np.zeros(raw.size // 4 + 4, "<u4")
    padded.view(np.uint8)[: raw.size] = raw
    bits = dtype.itemsize * 8
    values: Words = np.empty(tokens.size, dtype)
    tables, limit = (_least(bits, s, m), raw_widths(bits, s, m)), 8 * raw.size
    read = _read_raw(tokens, *tables, padded, _is_rare(limit, tokens.size), limit, values)
    return (values, (read + 7) // 8) if read <= limit else None


def _is_rare(raw_bits: int, values: int) -> bool:
    """Return whether few of the values can have raw bits."""
    return 4 * raw_bits < values


def _starts(frequencies: Frequencies) -> Frequencies:
    """Return the sum of the frequencies before each token."""
    sums = np.cumsum(frequencies, axis=1, dtype=np.uint32)
    out: Frequencies = sums - frequencies
    return out


def _packed(frequencies: Frequencies) -> Frequencies:
    """Return each frequency in the upper 16 bits, and the sum of those before it in the lower."""
    packed: Frequencies = (frequencies << _SHIFT16) | (_starts(frequencies) & _LOW16)
    return packed


def encode(
    tokens: Tokens, contexts: Tokens, lookup: Clusters, frequencies: Frequencies, names: Tokens | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """Encode ``tokens``; return the four final states and the 16-bit words in the order they are read.

    Token ``i`` is coded by row ``lookup[contexts[i]]`` of ``frequencies``.  Each row adds up to 4096 and has
    no zero for a token that occurs in it.  With ``names`` (:func:`coarser`) token ``t`` is coded as
    ``names[t]``.
    """
    packed = _packed(frequencies)
    packed = np.ascontiguousarray(packed if names is None else packed[:, names])
    divisors = np.maximum(packed >> _SHIFT16, 1).astype(np.uint64)
    reciprocals = ((_ONE << _BITS44) + divisors - _ONE) // divisors
    states = np.full(STATES, LOWER, np.uint64)
    out = np.empty(tokens.size + 2, np.uint16)
    wide = np.uint64(packed.shape[1])
    tables = lookup, wide, packed.reshape(-1), reciprocals.reshape(-1)
    at = _encode(tokens, contexts, tables, states, out)
    return states.astype(np.uint32), out[at:].copy()


def decode(
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    contexts: Tokens,
    lookup: Clusters,
    frequencies: Frequencies,
) -> Tokens | None:
    """Decode one token for each of ``contexts``; None if the data is damaged.

    Every row of ``frequencies`` must add up to 4096, and ``lookup`` must have numbers of its rows.
    """
    slots = np.empty((frequencies.shape[0], TOTAL), np.uint16)
    _slots(frequencies, slots)
    tokens = np.empty(contexts.size, np.uint16)
    final = states.astype(np.uint32)
    padded = np.append(words, np.zeros(4, np.uint16))
    wide, packed = np.uint64(frequencies.shape[1]), _packed(frequencies).reshape(-1)
    read = _decode(padded, contexts, (lookup, slots.reshape(-1), packed, wide), final, tokens)
    return tokens if read == words.size and bool((final == LOWER).all()) else None
