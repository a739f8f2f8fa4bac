"""A static range coder (rANS) for tokens under contexts, and the tokens themselves.

A value below ``2**s`` is a token of its own.  A larger one, of ``n + 1`` bits, has the token
``2**s + (n - s) * 2**m + t`` where ``t`` are the ``m`` bits below its highest bit, and ``n - m``
raw bits that are not worth modelling.

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
_LOW12 = np.uint32(TOTAL - 1)
_BITS12, _BITS16, _BITS20 = np.uint32(12), np.uint32(16), np.uint64(20)
_LOWER32 = np.uint32(LOWER)


def alphabet(bits: int, s: int, m: int) -> int:
    """The number of tokens of values of ``bits`` bits."""
    return min(1 << s, 1 << bits) + (max(bits - s, 0) << m)


@kernel
def _tokenise(
    values: Words, s: int, m: int, tokens: Tokens, histogram: NDArray[np.uint32], contexts: Tokens
) -> int:
    raw_bits = 0
    direct = np.uint64(1 << s)
    for i in range(values.size):
        v = np.uint64(values[i])
        token = np.int64(v)
        if v >= direct:
            n = s
            rest = v >> np.uint64(s + 1)
            while rest:
                rest >>= _ONE
                n += 1
            top = np.int64(v >> np.uint64(n - m)) & ((1 << m) - 1)
            token = (1 << s) + ((n - s) << m) + top
            raw_bits += n - m
        tokens[i] = token
        histogram[contexts[i], token] += 1
    return raw_bits


@kernel
def _write_raw(values: Words, tokens: Tokens, s: int, m: int, out: NDArray[np.uint8]) -> None:
    held, count, at = np.uint64(0), 0, 0
    direct = 1 << s
    for i in range(values.size):
        if tokens[i] < direct:
            continue
        width = s + ((tokens[i] - direct) >> m) - m
        v = np.uint64(values[i])
        while width > 0:
            step = width if width < 32 else 32
            held |= (v & ((_ONE << np.uint64(step)) - _ONE)) << np.uint64(count)
            v >>= np.uint64(step)
            count += step
            width -= step
            while count >= 8:
                out[at] = held & np.uint64(255)
                held >>= np.uint64(8)
                count -= 8
                at += 1
    if count:
        out[at] = held & np.uint64(255)


@kernel
def _raw_bits(tokens: Tokens, s: int, m: int) -> int:
    total = 0
    direct = 1 << s
    for i in range(tokens.size):
        if tokens[i] >= direct:
            total += s + ((tokens[i] - direct) >> m) - m
    return total


@kernel
def _read_raw(
    tokens: Tokens, starts: NDArray[np.uint64], widths: NDArray[np.uint8], raw: Frequencies, values: Words
) -> None:
    position: Any = 0
    for i in range(tokens.size):
        token = tokens[i]
        width, start = np.int64(widths[token]), starts[token]
        k, shift = position >> 5, np.uint64(position & 31)
        low = width if width < 32 else 32
        pair = np.uint64(raw[k]) | (np.uint64(raw[k + 1]) << np.uint64(32))
        v = start + ((pair >> shift) & ((_ONE << np.uint64(low)) - _ONE))
        if width > 32:
            pair = np.uint64(raw[k + 1]) | (np.uint64(raw[k + 2]) << np.uint64(32))
            v += ((pair >> shift) & ((_ONE << np.uint64(width - 32)) - _ONE)) << np.uint64(32)
        values[i] = v
        position += width


@kernel
def _encode(
    tokens: Tokens,
    clusters: Clusters,
    frequencies: Frequencies,
    starts: Frequencies,
    states: NDArray[np.uint32],
    out: NDArray[np.uint16],
) -> int:
    at = out.size
    for i in range(tokens.size - 1, -1, -1):
        frequency = np.uint64(frequencies[clusters[i], tokens[i]])
        x = np.uint64(states[i & 3])
        if x >= frequency << _BITS20:
            at -= 1
            out[at] = x & np.uint64(0xFFFF)
            x >>= np.uint64(16)
        quotient = np.uint64(np.uint32(x) // np.uint32(frequency))
        start = np.uint64(starts[clusters[i], tokens[i]])
        states[i & 3] = (quotient << np.uint64(12)) + (x - quotient * frequency) + start
    return at


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
    x: np.uint32, cluster: int, slots: NDArray[np.uint16], packed: Frequencies
) -> tuple[np.uint16, np.uint32]:
    slot = x & _LOW12
    token = slots[cluster, slot]
    entry = packed[cluster, token]
    return token, (entry >> _BITS16) * (x >> _BITS12) + slot - (entry & np.uint32(0xFFFF))


@kernel
def _decode(
    words: NDArray[np.uint16],
    clusters: Clusters,
    slots: NDArray[np.uint16],
    packed: Frequencies,
    states: NDArray[np.uint32],
    tokens: Tokens,
) -> int:
    at, last = 0, words.size - 1
    a, b, c, d = states[0], states[1], states[2], states[3]
    for i in range(0, tokens.size - 3, 4):
        tokens[i], a = _step(a, clusters[i], slots, packed)
        tokens[i + 1], b = _step(b, clusters[i + 1], slots, packed)
        tokens[i + 2], c = _step(c, clusters[i + 2], slots, packed)
        tokens[i + 3], d = _step(d, clusters[i + 3], slots, packed)
        if a < _LOWER32:
            a = (a << _BITS16) | np.uint32(words[min(at, last)])
            at += 1
        if b < _LOWER32:
            b = (b << _BITS16) | np.uint32(words[min(at, last)])
            at += 1
        if c < _LOWER32:
            c = (c << _BITS16) | np.uint32(words[min(at, last)])
            at += 1
        if d < _LOWER32:
            d = (d << _BITS16) | np.uint32(words[min(at, last)])
            at += 1
    states[0], states[1], states[2], states[3] = a, b, c, d
    for i in range(tokens.size & ~3, tokens.size):
        token, x = _step(states[i & 3], clusters[i], slots, packed)
        tokens[i] = token
        if x < _LOWER32:
            x = (x << _BITS16) | np.uint32(words[min(at, last)])
            at += 1
        states[i & 3] = x
    return at


def tokenise(
    values: Words, s: int, m: int, contexts: Tokens, context_count: int
) -> tuple[Tokens, NDArray[np.uint32], int]:
    """The tokens of ``values``, their counts in each context, and the number of raw bits.

    ``contexts`` holds a number below ``context_count`` for every value; the counts have the
    shape ``(context_count, alphabet)``.
    """
    tokens = np.empty(values.size, np.uint16)
    histogram = np.zeros((context_count, alphabet(values.dtype.itemsize * 8, s, m)), np.uint32)
    return tokens, histogram, int(_tokenise(values, s, m, tokens, histogram, contexts))


def write_raw(values: Words, tokens: Tokens, s: int, m: int, raw_bits: int) -> NDArray[np.uint8]:
    """The raw bits of all values, from the lowest bit of the first byte on."""
    out = np.empty((raw_bits + 7) // 8, np.uint8)
    _write_raw(values, tokens, s, m, out)
    return out


def raw_size(tokens: Tokens, s: int, m: int) -> int:
    """The number of bytes of raw bits that ``tokens`` call for."""
    return (int(_raw_bits(tokens, s, m)) + 7) // 8


def read_raw(tokens: Tokens, s: int, m: int, raw: NDArray[np.uint8], dtype: np.dtype[Any]) -> Words:
    """The values of ``tokens``; ``raw`` must have :func:`raw_size` bytes."""
    padded = np.zeros(raw.size // 4 + 4, "<u4")
    padded.view(np.uint8)[: raw.size] = raw
    bits = dtype.itemsize * 8
    starts = np.arange(alphabet(bits, s, m), dtype=np.uint64)
    widths = np.zeros(starts.size, np.uint8)
    large = np.arange(max(starts.size - (1 << s), 0), dtype=np.uint64)
    widths[1 << s :] = s + (large >> np.uint64(m)) - m
    tops = (_ONE << np.uint64(m)) | (large & np.uint64((1 << m) - 1))
    starts[1 << s :] = tops << widths[1 << s :].astype(np.uint64)
    values: Words = np.empty(tokens.size, dtype)
    _read_raw(tokens, starts, widths, padded, values)
    return values


def _starts(frequencies: Frequencies) -> Frequencies:
    """The sum of the frequencies before each token."""
    sums = np.cumsum(frequencies, axis=1, dtype=np.uint32)
    out: Frequencies = sums - frequencies
    return out


def encode(
    tokens: Tokens, clusters: Clusters, frequencies: Frequencies
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """The four final states and the 16-bit words of ``tokens``, in the order they are read.

    ``frequencies`` has one row a cluster, each adding up to 4096, with no zero for a token
    that occurs in the cluster.
    """
    states = np.full(STATES, LOWER, np.uint32)
    out = np.empty(tokens.size + 1, np.uint16)
    at = _encode(tokens, clusters, frequencies, _starts(frequencies), states, out)
    return states, out[at:].copy()


def decode(
    states: NDArray[np.uint32], words: NDArray[np.uint16], clusters: Clusters, frequencies: Frequencies
) -> Tokens | None:
    """The tokens that were encoded, one for each of ``clusters``; None if the data is damaged.

    Every row of ``frequencies`` must add up to 4096, every cluster be one of its rows.
    """
    slots = np.empty((frequencies.shape[0], TOTAL), np.uint16)
    _slots(frequencies, slots)
    packed = (frequencies << np.uint32(16)) | (_starts(frequencies) & np.uint32(0xFFFF))
    tokens = np.empty(clusters.size, np.uint16)
    final = states.astype(np.uint32)
    padded = words if words.size else np.zeros(1, np.uint16)
    read = _decode(padded, clusters, slots, packed, final, tokens)
    return tokens if read == words.size and bool((final == LOWER).all()) else None
