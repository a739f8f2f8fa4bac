"""Kernels for merges: histograms of bits, means, and the consensus on signs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Keys = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint32 or uint64."""
Words16 = NDArray[np.uint16]

_BITS16, _ROUND16, _ODD16 = np.uint32(16), np.uint32(0x7FFF), np.uint32(1)
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
def _mean(first: Words16, other: Words16, one: np.float32, two: np.float32, out: Words16) -> int:
    unfinished = 0
    for i in range(out.size):
        a, b = np.uint32(first[i]), np.uint32(other[i])
        value = np.uint32(a << _BITS16).view(np.float32) * one
        value += np.uint32(b << _BITS16).view(np.float32) * two
        x = np.float32(value).view(np.uint32)
        high = np.uint32(x >> _BITS16)
        rounded = np.uint32(np.uint32(x + _ROUND16 + (high & _ODD16)) >> _BITS16)
        word = a if a == b else rounded
        out[i] = np.uint16(word)
        unfinished += np.uint32(word & _EXPONENT16) == _EXPONENT16 or (x & _EXPONENT32) == _EXPONENT32
    return unfinished


def mean(first: Words16, other: Words16, factors: tuple[float, float]) -> Words16 | None:
    """Return the sum of two arrays of bf16 words times ``factors``; None unless all of it is finite.

    Products and sum are rounded to float32, the sum to bf16, ties to even.  Equal words stay as they are.
    """
    if first.size != other.size:
        raise ValueError("words of one size")
    out = np.empty(first.size, np.uint16)
    odd = _mean(first, other, np.float32(factors[0]), np.float32(factors[1]), out)
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
