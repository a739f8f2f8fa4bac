"""Values as tokens and raw bits.

A value below ``2**s`` is its own token.  A larger one, of ``n + 1`` bits, has the token
``2**s + (n - s) * 2**m + t``, where ``t`` are the ``m`` bits below its highest bit, and ``n - m`` raw bits
that are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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
_EXACT, _ELEVEN, _MANTISSA, _BIAS = np.uint64(53), np.uint64(11), np.uint64(52), np.uint64(1023)
_THREE = np.uint64(3)
_TABLE_BITS: Final = 16
"""The tokens of values of so many bits are looked up; those of larger ones are computed."""


def alphabet(bits: int, s: int, m: int) -> int:
    """Return the number of tokens for values of ``bits`` bits."""
    return min(1 << s, 1 << bits) + (max(bits - s, 0) << m)


@kernel
def _token(value: np.uint64, s: np.uint64, m: np.uint64) -> np.uint64:
    # For values of at least 2**s: the exponent and the top of the mantissa of the same number as a float.
    extra = np.uint64((value >> _EXACT) != _ZERO) * _ELEVEN
    bits = np.float64(value >> extra).view(np.uint64)
    found: np.uint64 = (_ONE << s) + ((extra - s) << m) + (bits >> (_MANTISSA - m)) - (_BIAS << m)
    return found


@kernel
def _tokenise(values: Words, rule: tuple[np.uint64, np.uint64], small: Tokens, tokens: Tokens) -> None:
    known = np.uint64(small.size)
    for i in range(values.size):
        value = np.uint64(values[i])
        tokens[i] = small[value] if value < known else _token(value, rule[0], rule[1])


@kernel
def _count(values: Words, named: Tokens, contexts: Tokens, wide: np.uint64, counts: Counts) -> None:
    i, end = _ZERO, np.uint64(values.size)
    while i < end:
        counts[np.uint64(contexts[i]) * wide + np.uint64(named[values[i]])] += np.uint32(1)
        i += _ONE


@kernel
def _place(
    values: Words,
    tables: tuple[Tokens, Tokens],
    keyed: tuple[Tokens, np.uint64, np.uint64, NDArray[np.uint8], int],
    least: np.uint64,
    out: tuple[Tokens, NDArray[np.uint8], Counts],
) -> int:
    # Values below `least` are their own tokens.  The others are numbered, and placed when all are known: a
    # branch on that would be unpredictable.  There is room for one more number; their count is returned.
    named, firsts = tables
    keys, shift, mask, levels, block = keyed
    places, seen, numbers = out
    count, j = _ZERO, _ZERO
    for b in range(levels.size):
        level = np.uint64(levels[b]) * (mask + _ONE)
        i, end = np.uint64(b * block), np.uint64(min((b + 1) * block, values.size))
        while i < end:
            key, value = level + ((np.uint64(keys[i]) >> shift) & mask), np.uint64(values[i])
            seen[key] = 1
            places[i] = np.uint64(firsts[key]) + value
            numbers[count] = np.uint32(i)
            count += np.uint64(value >= least)
            i += _ONE
    while j < count:
        i = np.uint64(numbers[j])
        value = np.uint64(values[i])
        places[i] = np.uint64(places[i]) - value + np.uint64(named[value])
        j += _ONE
    return int(count)


@kernel
def _tally(places: Tokens, counts: Counts) -> None:
    # Four tables, because adding to a count that was just written has to wait for the store.
    i, end = _ZERO, np.uint64(places.size)
    while i < end:
        counts[i & _THREE, places[i]] += np.uint32(1)
        i += _ONE


@kernel
def _large(values: Words, least: np.uint64, numbers: Counts) -> None:
    # The numbers of the values that are not below `least`, as in _place.
    i, end, count = _ZERO, np.uint64(values.size), _ZERO
    while i < end:
        numbers[count] = np.uint32(i)
        count += np.uint64(np.uint64(values[i]) >= least)
        i += _ONE


@kernel
def _write_raw(
    values: Words, tokens: Words, tables: tuple[Tokens, NDArray[np.uint8]], numbers: Counts, raw: Counts
) -> None:
    named, widths = tables
    held, filled, at, i, end = _ZERO, _ZERO, _ZERO, _ZERO, np.uint64(numbers.size)
    while i < end:
        value, width = np.uint64(values[numbers[i]]), np.uint64(widths[named[tokens[numbers[i]]]])
        if width > _WORD:
            held |= (value & _LOW32) << filled
            raw[at] = np.uint32(held & _LOW32)
            at += _ONE
            held >>= _WORD
            value >>= _WORD
            width -= _WORD
        held |= (value & ((_ONE << width) - _ONE)) << filled
        filled += width
        if filled >= _WORD:
            raw[at] = np.uint32(held & _LOW32)
            at += _ONE
            held >>= _WORD
            filled -= _WORD
        i += _ONE
    raw[at] = np.uint32(held)


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


@cache
def _small(bits: int, s: int, m: int) -> Tokens:
    """Return the tokens of the smallest values."""
    values = np.arange(1 << min(bits, _TABLE_BITS), dtype=np.uint64)
    tokens = np.searchsorted(least(bits, s, m), values, side="right") - 1
    return tokens.astype(np.uint16)


@cache
def _themselves() -> Tokens:
    return np.arange(1 << _TABLE_BITS, dtype=np.uint16)


def _named(values: Words, s: int, m: int) -> tuple[Words, Tokens]:
    """Return short numbers, one for each value, and the token of each number."""
    bits = values.dtype.itemsize * 8
    small = _small(bits, s, m)
    if bits <= _TABLE_BITS:
        return values, small
    tokens = np.empty(values.size, np.uint16)
    _tokenise(values, (np.uint64(s), np.uint64(m)), small, tokens)
    return tokens, _themselves()


def counts(values: Words, s: int, m: int, contexts: Tokens, context_count: int) -> Counts:
    """Return how often each token occurs in each context, shape ``(context_count, alphabet)``.

    ``contexts`` has a number below ``context_count`` for every value.
    """
    wide = alphabet(values.dtype.itemsize * 8, s, m)
    found = np.zeros(context_count * wide, np.uint32)
    _count(*_named(values, s, m), contexts, np.uint64(wide), found)
    return found.reshape(-1, wide)


@dataclass(frozen=True)
class PlacedTokens:
    """Values whose tokens are placed: ``cluster * alphabet + token`` of each.

    ``seen`` marks the keys that occur, ``widths`` are the raw bits of each token.
    """

    places: Tokens
    seen: NDArray[np.uint8]
    widths: NDArray[np.uint8]
    _values: Words
    _tokens: tuple[Words, Tokens]
    _large: Counts

    def raw_bits(self, bits: int) -> NDArray[np.uint8]:
        """Return the raw bits of all values in order, ``bits`` of them, which begin at the lowest bit."""
        raw, (tokens, named) = np.empty(bits // 32 + 1, "<u4"), self._tokens
        _write_raw(self._values, tokens, (named, self.widths), self._large, raw)
        return raw.view(np.uint8)[: (bits + 7) // 8]


def places(
    values: Words, keys: ContextKeys, rule: tuple[int, int], clusters: NDArray[np.uint8]
) -> PlacedTokens:
    """Place ``values``, where ``clusters`` has the cluster (at most 63) of each context of ``keys``."""
    widths = raw_widths(values.dtype.itemsize * 8, *rule)
    tokens, named = found = _named(values, *rule)
    firsts = keys.table(clusters).astype(np.uint16) * np.uint16(widths.size)
    out, seen = np.empty(values.size, np.uint16), np.zeros(firsts.size, np.uint8)
    numbers, least = np.empty(values.size + 1, np.uint32), np.uint64(np.count_nonzero(widths == 0))
    large = _place(tokens, (named, firsts), keys.parts, least, (out, seen, numbers))
    return PlacedTokens(out, seen, widths, values, found, numbers[:large])


def places_of(values: Words, least: int = 1) -> Counts:
    """Return the numbers of the values that are at least ``least``, ascending."""
    count = int(np.count_nonzero(values >= least))
    numbers = np.empty(count + 1, np.uint32)
    _large(values, np.uint64(least), numbers)
    return numbers[:count]


@cache
def raw_widths(bits: int, s: int, m: int) -> NDArray[np.uint8]:
    """Return the number of raw bits of each token for values of ``bits`` bits."""
    widths = np.zeros(alphabet(bits, s, m), np.uint8)
    large = np.arange(max(widths.size - (1 << s), 0))
    widths[1 << s :] = s + (large >> m) - m
    return widths


@cache
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
