"""Kernels for merges: histograms of bits, sums and products of two sides, and the consensus on signs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel, unwritable

Keys = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint32 or uint64."""
Words16 = NDArray[np.uint16]
Sums = NDArray[np.float64]
Rates = NDArray[np.float32]

_BITS16, _ROUND16, _ODD16 = np.uint32(16), np.uint32(0x7FFF), np.uint32(1)
_LANES: Final = 64
_WORD16 = np.uint32(0x7FFF)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_EXPONENT16, _EXPONENT32 = np.uint32(0x7F80), np.uint32(0x7F800000)


@kernel
def _histogram(keys: Keys, shift: np.uint64, prefix: np.uint64, out: NDArray[Any]) -> None:
    for i in range(keys.size):
        high = np.uint64(keys[i]) >> shift
        if high >> np.uint64(16) == prefix:
            out[high & np.uint64(0xFFFF)] += 1


def add_histogram(keys: Keys, shift: int, prefix: int, out: NDArray[Any]) -> None:
    """Add to ``out``, of 65536 entries, the histogram of the 16 bits above ``shift`` of some keys.

    These are the keys whose bits above ``shift + 16`` are ``prefix``.
    """
    if out.size != 1 << 16:
        raise ValueError("a histogram of 16 bits has 65536 entries")
    _histogram(keys, np.uint64(shift), np.uint64(prefix), out)


@kernel
def _keep(values: NDArray[Any], keys: Keys, cut: Any, weight: Any, total: NDArray[Any]) -> None:
    # Here and below: one row at a time and no branch allow the compiler to vectorise.
    zero = values.dtype.type(0)
    for i in range(values.size):
        kept = values[i] * weight if keys[i] >= cut else zero
        values[i] = kept
        total[i] += kept


@kernel
def _agree(
    values: NDArray[Any], weight: Any, total: NDArray[Any], below: NDArray[Any], out: NDArray[Any]
) -> None:
    zero = values.dtype.type(0)
    for i in range(values.size):
        value = values[i]
        agrees = (value > zero) if total[i] >= zero else (value < zero)
        out[i] += value if (agrees or value != value) else zero
        below[i] += weight if agrees else zero


@kernel
def _divide(values: NDArray[Any], by: NDArray[Any]) -> None:
    zero, one = values.dtype.type(0), values.dtype.type(1)
    for i in range(values.size):
        divisor = by[i]
        values[i] /= one if divisor == zero else divisor


@kernel
def _keep_equal(words: NDArray[Any], first: NDArray[Any], other: NDArray[Any]) -> None:
    for i in range(words.size):
        computed, there = words[i], first[i]
        words[i] = there if there == other[i] else computed


def keep_equal(words: NDArray[Any], first: NDArray[Any], other: NDArray[Any]) -> None:
    """Overwrite the ``words`` at which ``first`` and ``other`` are equal; all are unsigned, of one size."""
    if not words.size == first.size == other.size:
        raise ValueError("words of one size")
    _keep_equal(words, first, other)


@kernel
def _wide(word: Any) -> np.float32:
    # The value of a word of bf16.
    return np.float32(np.uint32(np.uint32(word) << _BITS16).view(np.float32))


@kernel
def _rounded(bits: np.uint32) -> np.uint32:
    # The word of bf16 that is nearest to a finite number of float32, ties to even.
    odd = np.uint32(bits >> _BITS16) & _ODD16
    return np.uint32(np.uint32(bits + _ROUND16 + odd) >> _BITS16)


@kernel
def _combine(
    first: Words16, other: Words16, factors: tuple[np.float32, np.float32], keep: bool, out: Words16
) -> int:
    unfinished, (one, two) = 0, factors
    for i in range(out.size):
        a, b = np.uint32(first[i]), np.uint32(other[i])
        x = np.float32(_wide(a) * one + _wide(b) * two).view(np.uint32)
        word = a if keep and a == b else _rounded(x)
        out[i] = np.uint16(word)
        unfinished += np.uint32(word & _EXPONENT16) == _EXPONENT16 or (x & _EXPONENT32) == _EXPONENT32
    return unfinished


def combined(
    first: Words16, other: Words16, factors: tuple[float, float], *, keep_equal: bool
) -> Words16 | None:
    """Return the sum of two arrays of bf16 words times ``factors``; None unless all of it is finite.

    Products and sum are rounded to float32, the sum to bf16, ties to even.  With ``keep_equal`` words
    that are equal stay as they are.
    """
    if first.size != other.size:
        raise ValueError("words of one size")
    out = np.empty(first.size, np.uint16)
    sides = unwritable(first), unwritable(other)
    odd = _combine(*sides, (np.float32(factors[0]), np.float32(factors[1])), keep_equal, out)
    return None if odd else out


@kernel
def _multiply(first: Words16, other: Words16, aa: Sums, ab: Sums, bb: Sums) -> None:
    # A sum of its own for each lane lets the compiler vectorise, in one order on every processor.
    for start in range(0, first.size, _LANES):
        one, two = first[start : start + _LANES], other[start : start + _LANES]
        for lane in range(_LANES):
            a, b = np.float64(_wide(one[lane])), np.float64(_wide(two[lane]))
            aa[lane] += a * a
            ab[lane] += a * b
            bb[lane] += b * b


def products(first: Words16, other: Words16) -> list[float]:
    """Return the dot products of two arrays of bf16 words: of the first with itself, of both, of the other.

    In float64, where the product of two such numbers is exact; only sums are rounded.  A NaN is the same on
    every processor.
    """
    if first.size != other.size:
        raise ValueError("words of one size")
    whole = first.size // _LANES * _LANES
    sums = np.zeros((3, _LANES))
    _multiply(unwritable(first[:whole]), unwritable(other[:whole]), *sums)
    if whole < first.size:
        rests = np.zeros((2, _LANES), np.uint16)
        rests[:, : first.size - whole] = first[whole:], other[whole:]
        _multiply(*map(unwritable, rests), *sums)
    return [value if value == value else math.nan for value in sums.sum(axis=1).tolist()]


@kernel
def _gaps(first: Words16, base: Words16, out: Keys) -> None:
    for i in range(out.size):
        out[i] = np.float32(_wide(first[i]) - _wide(base[i])).view(np.uint32) & _MAGNITUDE


def gaps(first: Words16, base: Words16) -> Keys:
    """Return the bits of the absolute differences, in float32, of two arrays of bf16 words."""
    if first.size != base.size:
        raise ValueError("words of one size")
    out = np.empty(first.size, np.uint32)
    _gaps(unwritable(first), unwritable(base), out)
    return out


def _end(keys: Keys, cut: int, ties: int) -> int:
    """Return where those of ``keys`` end that count though they only equal ``cut``: the first ``ties``."""
    if np.count_nonzero(keys == cut) <= ties:
        return int(keys.size)
    return int(np.flatnonzero(keys == cut)[ties - 1]) + 1 if ties > 0 else 0


@kernel
def _elect_two(
    first: Words16, other: Words16, base: Words16, how: tuple[Keys, NDArray[np.int64], Rates], out: Words16
) -> int:
    cuts, ends, rates = how
    zero, one = np.float32(0), np.float32(1)
    cut, cut2, end, end2 = cuts[0], cuts[1], np.uint32(ends[0]), np.uint32(ends[1])
    weight, weight2, divides, scale = rates[0], rates[1], rates[2] != zero, rates[3]
    unfinished = 0
    for i in range(out.size):  # no branch: it is made a vector of
        b, at = _wide(base[i]), np.uint32(i)
        x, y = np.float32(_wide(first[i]) - b), np.float32(_wide(other[i]) - b)
        key, key2 = x.view(np.uint32) & _MAGNITUDE, y.view(np.uint32) & _MAGNITUDE
        x = x * weight if (key > cut) | ((key == cut) & (at < end)) else zero
        y = y * weight2 if (key2 > cut2) | ((key2 == cut2) & (at < end2)) else zero
        sign = one if x + y >= zero else -one
        agrees, agrees2 = x * sign > zero, y * sign > zero
        value = (x if agrees else zero) + (y if agrees2 else zero)
        below = (weight if agrees else zero) + (weight2 if agrees2 else zero)
        value /= below if divides & (below != zero) else one
        found = np.float32(b + value * scale).view(np.uint32)
        word = _rounded(found)
        out[i] = np.uint16(word)
        largest = max(max(key, key2), max(found & _MAGNITUDE, np.uint32(word & _WORD16) << _BITS16))
        unfinished += 1 if largest >= _EXPONENT32 else 0
    return unfinished


def elected_words(
    sides: Sequence[Words16],
    base: Words16,
    cuts: Keys,
    ties: NDArray[np.int64],
    rates: Sequence[float],
    *,
    divide: bool,
) -> Words16 | None:
    """Return what :func:`elect` and sums with ``base`` make of two sides of bf16; None unless all is finite.

    ``rates`` are the weights of both, and what the consensus is multiplied by.  A pass over words in place of
    many over differences.
    """
    if len(sides) != 2 or any(side.size != base.size for side in sides) or base.size >= 1 << 31:
        raise ValueError("two sides of the size of the base")
    if (cuts.size, ties.size, len(rates)) != (2, 2, 3):
        raise ValueError("a cut, a quota and a weight for each side, and a factor")
    numbers = zip(sides, cuts, ties.tolist(), strict=True)
    ends = np.array([_end(gaps(side, base), cut, count) for side, cut, count in numbers], np.int64)
    with np.errstate(over="ignore"):
        asked = np.array([*rates[:2], divide, rates[2]], np.float32)
    if not np.isfinite(asked).all():
        return None
    out = np.empty(base.size, np.uint16)
    words = unwritable(sides[0]), unwritable(sides[1]), unwritable(base)
    odd = _elect_two(*words, (cuts, ends, asked), out)
    return None if odd else out


def elect(
    values: NDArray[Any], cuts: Keys, ties: NDArray[np.int64], weights: NDArray[Any], *, divide: bool
) -> NDArray[Any]:
    """Return the consensus of TIES on the rows of ``values`` (float32 or float64), which are overwritten.

    The elements of row n count whose bits without the sign are above ``cuts[n]``, and the first ``ties[n]``
    equal to it.  The result is the weighted sum of the elements with the elected sign.  With ``divide`` it is
    divided by the sum of their weights, unless that is zero.
    """
    rows = values.shape[0]
    if cuts.size != rows or ties.size != rows or weights.size != rows:
        raise ValueError("a cut, a quota and a weight for each row")
    kind = cuts.dtype.type
    keys: NDArray[Any] = values.view(kind) & kind((1 << (8 * cuts.dtype.itemsize - 1)) - 1)
    total, below, out = (np.zeros(values.shape[1], values.dtype) for _ in range(3))
    for n, weight in enumerate(weights.astype(values.dtype)):
        if ties[n] < out.size:
            values[n, np.flatnonzero(keys[n] == cuts[n])[max(int(ties[n]), 0) :]] = 0
        _keep(values[n], keys[n], cuts[n], weight, total)
    for n, weight in enumerate(weights.astype(values.dtype)):
        _agree(values[n], weight, total, below, out)
    if divide:
        _divide(out, below)
    return out
