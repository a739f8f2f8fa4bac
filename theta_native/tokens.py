"""Values as tokens and raw bits.

A value below ``2**s`` is its own token.  A larger one, of ``n + 1`` bits, has the token
``2**s + (n - s) * 2**m + t``, where ``t`` are the ``m`` bits below its highest bit, and ``n - m`` raw bits
that are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel
from theta_native.contexts import ContextKeys

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint8, uint16, uint32 or uint64."""
Tokens = NDArray[np.uint16]
Counts = NDArray[np.uint32]

_ZERO, _ONE = np.uint64(0), np.uint64(1)
_WORD = np.uint64(32)
_LOW32 = np.uint64(0xFFFFFFFF)
_TABLE_BITS: Final = 12
"""The tokens of values of so many bits are looked up; those of larger ones are computed."""


def alphabet(bits: int, s: int, m: int) -> int:
    """Return the number of tokens for values of ``bits`` bits."""
    return min(1 << s, 1 << bits) + (max(bits - s, 0) << m)


@kernel
def _token(value: np.uint64, s: np.uint64, m: np.uint64) -> np.uint64:
    # For values of at least 2**s.
    n, rest = s, value >> (s + _ONE)
    while rest:
        rest >>= _ONE
        n += _ONE
    return (_ONE << s) + ((n - s) << m) + ((value >> (n - m)) & ((_ONE << m) - _ONE))


@kernel
def _count(
    values: Words,
    rule: tuple[np.uint64, np.uint64, np.uint64],
    small: Tokens,
    contexts: Tokens,
    counts: Counts,
) -> None:
    s, m, wide = rule
    known = np.uint64(small.size)
    i, end = _ZERO, np.uint64(values.size)
    while i < end:
        value = np.uint64(values[i])
        token = np.uint64(small[value]) if value < known else _token(value, s, m)
        counts[np.uint64(contexts[i]) * wide + token] += np.uint32(1)
        i += _ONE


@kernel
def _place(
    values: Words,
    rule: tuple[np.uint64, np.uint64, np.uint64],
    tables: tuple[Tokens, NDArray[np.uint8], NDArray[np.uint8], np.uint64],
    keyed: tuple[Tokens, np.uint64, np.uint64, NDArray[np.uint8], int],
    places: Tokens,
    counts: Counts,
    raw: Counts,
) -> int:
    # Return the number of raw bits.  A branch on whether there are any is faster only if they are rare:
    # `plain` is 0, or the number of values that are their own tokens.
    s, m, plain = rule
    small, widths, clusters, wide = tables
    keys, shift, mask, levels, block = keyed
    held, count, at, known = _ZERO, _ZERO, _ZERO, np.uint64(small.size)
    for b in range(levels.size):
        level = np.uint64(levels[b]) * (mask + _ONE)
        i, end = np.uint64(b * block), np.uint64(min((b + 1) * block, values.size))
        while i < end:
            value = np.uint64(values[i])
            place = np.uint64(clusters[level + ((np.uint64(keys[i]) >> shift) & mask)]) * wide
            if value < plain:
                place += value
            else:
                token = np.uint64(small[value]) if value < known else _token(value, s, m)
                place += token
                width = np.uint64(widths[token])
                if width > _WORD:
                    held |= (value & _LOW32) << count
                    raw[at] = np.uint32(held & _LOW32)
                    at += _ONE
                    held >>= _WORD
                    value >>= _WORD
                    width -= _WORD
                held |= (value & ((_ONE << width) - _ONE)) << count
                count += width
                if count >= _WORD:
                    raw[at] = np.uint32(held & _LOW32)
                    at += _ONE
                    held >>= _WORD
                    count -= _WORD
            places[i] = place
            counts[place] += np.uint32(1)
            i += _ONE
    raw[at] = np.uint32(held)
    return int((at << np.uint64(5)) + count)


@kernel
def _read_raw(
    tokens: Tokens,
    starts: NDArray[np.uint64],
    widths: NDArray[np.uint8],
    raw: Counts,
    plain: np.uint16,
    limit: np.uint64,
    values: Words,
) -> int:
    # Return the number of bits read; more than `limit` (of `raw` without its last 12 bytes) means damage.
    position, i, end = _ZERO, _ZERO, np.uint64(tokens.size)
    while i < end:
        token = tokens[i]
        if token < plain:
            values[i] = token
            i += _ONE
            continue
        width, start = np.uint64(widths[token]), starts[token]
        k, shift = position >> np.uint64(5), position & np.uint64(31)
        position += width
        if position > limit:
            break
        low = min(width, _WORD)
        pair = np.uint64(raw[k]) | (np.uint64(raw[k + _ONE]) << _WORD)
        v = start + ((pair >> shift) & ((_ONE << low) - _ONE))
        if width > _WORD:
            pair = np.uint64(raw[k + _ONE]) | (np.uint64(raw[k + np.uint64(2)]) << _WORD)
            v += ((pair >> shift) & ((_ONE << (width - _WORD)) - _ONE)) << _WORD
        values[i] = v
        i += _ONE
    return int(position)


def _small(bits: int, s: int, m: int) -> Tokens:
    """Return the tokens of the smallest values."""
    last = min(bits, _TABLE_BITS)
    values = np.arange(1 << last, dtype=np.uint64)
    tokens = np.searchsorted(least(bits, s, m), values, side="right") - 1
    return tokens.astype(np.uint16)


def counts(values: Words, s: int, m: int, contexts: Tokens, context_count: int) -> Counts:
    """Return how often each token occurs in each context, shape ``(context_count, alphabet)``.

    ``contexts`` has a number below ``context_count`` for every value.
    """
    bits = values.dtype.itemsize * 8
    found = np.zeros((context_count, alphabet(bits, s, m)), np.uint32)
    rule = np.uint64(s), np.uint64(m), np.uint64(found.shape[1])
    _count(values, rule, _small(bits, s, m), contexts, found.reshape(-1))
    return found


@dataclass(frozen=True)
class TokenStream:
    """Values for the coder: ``cluster * alphabet + token`` of each, and all raw bits in order.

    ``counts`` has how often each token occurs in each cluster; ``raw_bits`` begins at the lowest bit.
    """

    places: Tokens
    counts: Counts
    raw_bits: NDArray[np.uint8]


def places(
    values: Words, rule: tuple[int, int], keys: ContextKeys, clusters: NDArray[np.uint8], rare: bool
) -> TokenStream:
    """Place ``values``, where ``clusters`` has the cluster (at most 63) of each context of ``keys``.

    ``rare`` tells whether few of them have raw bits.
    """
    bits, (s, m) = values.dtype.itemsize * 8, rule
    wide, widths = alphabet(bits, s, m), raw_widths(bits, s, m)
    counts, found = np.zeros((int(clusters.max()) + 1, wide), np.uint32), np.empty(values.size, np.uint16)
    raw = np.empty(values.size * int(widths[-1]) // 32 + 2, "<u4")
    numbers = np.uint64(s), np.uint64(m), np.uint64(1 << s if rare else 0)
    tables = _small(bits, s, m), widths, keys.table(clusters), np.uint64(wide)
    raw_bits = _place(values, numbers, tables, keys.parts, found, counts.reshape(-1), raw)
    return TokenStream(found, counts, raw.view(np.uint8)[: (raw_bits + 7) // 8])


def raw_widths(bits: int, s: int, m: int) -> NDArray[np.uint8]:
    """Return the number of raw bits of each token for values of ``bits`` bits."""
    widths = np.zeros(alphabet(bits, s, m), np.uint8)
    large = np.arange(max(widths.size - (1 << s), 0))
    widths[1 << s :] = s + (large >> m) - m
    return widths


def least(bits: int, s: int, m: int) -> NDArray[np.uint64]:
    """Return the smallest value of each token."""
    least = np.arange(alphabet(bits, s, m), dtype=np.uint64)
    large = np.arange(max(least.size - (1 << s), 0), dtype=np.uint64)
    tops = (_ONE << np.uint64(m)) | (large & np.uint64((1 << m) - 1))
    least[1 << s :] = tops << raw_widths(bits, s, m)[1 << s :].astype(np.uint64)
    return least


def coarser(bits: int, fine: tuple[int, int], rule: tuple[int, int]) -> Tokens:
    """Map each token of the rule ``fine`` to one of ``rule``, whose s and m are not larger; ascending."""
    starts = least(bits, *rule)
    names = np.searchsorted(starts, least(bits, *fine), side="right") - 1
    return names.astype(np.uint16)


def read_raw(
    tokens: Tokens, s: int, m: int, raw: NDArray[np.uint8], dtype: np.dtype[Any]
) -> tuple[Words, int] | None:
    """Return the values of ``tokens`` and the number of bytes read from ``raw``; None if it is too short."""
    padded = np.zeros(raw.size // 4 + 4, "<u4")
    padded.view(np.uint8)[: raw.size] = raw
    bits, limit = dtype.itemsize * 8, 8 * raw.size
    values: Words = np.empty(tokens.size, dtype)
    plain = np.uint16(min(1 << s, 1 << bits) if 4 * limit < tokens.size else 0)
    read = _read_raw(
        tokens, least(bits, s, m), raw_widths(bits, s, m), padded, plain, np.uint64(limit), values
    )
    return (values, (read + 7) // 8) if read <= limit else None
