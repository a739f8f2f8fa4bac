"""Contexts of residuals: what the decoder knows of a residual before it is decoded."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint8, uint16, uint32 or uint64."""
Classes = NDArray[np.uint8]
Contexts = NDArray[np.uint16]

_SHORT = np.uint64(16)
_LARGEST_SHORT = np.uint64(0xFFFF)


@kernel
def _fold(magnitudes: NDArray[np.uint16], top: int, count: int, out: Classes) -> None:
    for i in range(magnitudes.size):
        below = top - np.int64(magnitudes[i])
        out[i] = 0 if below < 0 else below if below < count else count - 1


@kernel
def _fine_bits(words: Words, shift: np.uint64, mask: np.uint64, out: Classes) -> None:
    for i in range(words.size):
        out[i] = (np.uint64(words[i]) >> shift) & mask


@kernel
def _histogram(numbers: NDArray[np.uint16], out: NDArray[np.int64]) -> None:
    for i in range(numbers.size):
        out[numbers[i]] += 1


@kernel
def _combine(
    classes: Classes,
    levels: Classes,
    level_count: int,
    block: int,
    fine: Classes,
    fine_count: int,
    out: Contexts,
) -> None:
    i = 0
    for b in range(levels.size):
        for _ in range(min(block, classes.size - i)):
            out[i] = (np.int64(classes[i]) * level_count + levels[b]) * fine_count + fine[i]
            i += 1


@kernel
def _excess(
    values: Words,
    classes: Classes,
    block: int,
    lengths_of: NDArray[np.uint8],
    sums: NDArray[np.int64],
    counts: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    lengths = np.empty(values.size, np.uint8)
    for i in range(values.size):
        rest, length = np.uint64(values[i]), np.int64(0)
        while rest > _LARGEST_SHORT:
            rest >>= _SHORT
            length += 16
        length += np.int64(lengths_of[rest])
        lengths[i] = length
        sums[classes[i]] += length
        counts[classes[i]] += 1
    means = np.empty(sums.size)
    for k in range(means.size):
        means[k] = sums[k] / max(counts[k], 1)
    for b in range(out.size):
        first, last = b * block, min((b + 1) * block, values.size)
        total = 0.0
        for i in range(first, last):
            total += lengths[i] - means[classes[i]]
        out[b] = total / max(last - first, 1)


@cache
def _lengths() -> NDArray[np.uint8]:
    """The length in bits of each number of 16 bits: a look-up is five times faster than counting."""
    return np.array([number.bit_length() for number in range(1 << 16)], np.uint8)


def histogram(numbers: NDArray[np.uint16], count: int) -> NDArray[np.int64]:
    """How often each number below ``count`` occurs; all must be below it."""
    out = np.zeros(count, np.int64)
    _histogram(numbers, out)
    return out


def fold(magnitudes: NDArray[np.uint16], top: int, count: int) -> Classes:
    """Classes ``top - magnitude``, cut to ``0 .. count - 1``."""
    out = np.empty(magnitudes.size, np.uint8)
    _fold(magnitudes, top, count, out)
    return out


def fine_bits(words: Words, shift: int, bits: int) -> Classes:
    """The ``bits`` bits of each word above its lowest ``shift`` bits."""
    out = np.empty(words.size, np.uint8)
    _fine_bits(words, np.uint64(shift), np.uint64((1 << bits) - 1), out)
    return out


def combine(
    classes: Classes, levels: Classes, level_count: int, block: int, fine: Classes, fine_count: int
) -> Contexts:
    """``(class * level_count + level of the block) * fine_count + fine`` of each element.

    ``levels`` has one entry below ``level_count`` for each ``block`` elements.
    """
    out = np.empty(classes.size, np.uint16)
    _combine(classes, levels, level_count, block, fine, fine_count, out)
    return out


def excess(values: Words, classes: Classes, class_count: int, block: int) -> NDArray[np.float64]:
    """For each block: by how many bits its values are longer than the mean of their classes."""
    out = np.empty(-(-values.size // block))
    sums, counts = np.zeros(class_count, np.int64), np.zeros(class_count, np.int64)
    _excess(values, classes, block, _lengths(), sums, counts, out)
    return out
