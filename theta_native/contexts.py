"""Contexts of residuals, computed from data that the decoder has before it decodes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_native import course, kernel

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint8, uint16, uint32 or uint64."""
Classes = NDArray[np.uint8]
Contexts = NDArray[np.uint16]
Keyed = tuple[Contexts, np.uint64, np.uint64, Classes, int]
"""``ContextKeys.parts``."""

_MAGNITUDES = 1 << 11
"""The exponents of the dtype with most of them."""
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
    # Four tables, because adding to a count that was just written has to wait for the store.
    for i in range(numbers.size):
        out[i & 3, numbers[i]] += 1


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
    step = np.uint16(level_count * fine_count)
    for b in range(levels.size):
        first, last = b * block, min((b + 1) * block, classes.size)
        # Slices of equal length, in the dtype of the result, allow the compiler to vectorise.
        c, f, o = classes[first:last], fine[first:last], out[first:last]
        level = np.uint16(levels[b] * fine_count)
        for i in range(c.size):
            o[i] = np.uint16(np.uint16(c[i]) * step + np.uint16(f[i]) + level)


@kernel
def _of_floats(
    words: Words,
    fields: tuple[tuple[np.uint64, np.uint64], tuple[np.uint64, np.uint64]],
    classes: tuple[int, int],
    levels: Classes,
    block: int,
    steps: tuple[np.uint16, np.uint16],
    out: Contexts,
) -> None:
    exponent, fine = fields
    top, last = classes[0], np.int64(classes[1] - 1)
    for b in range(levels.size):
        first, end = b * block, min((b + 1) * block, words.size)
        w, o = words[first:end], out[first:end]
        level = np.uint16(levels[b] * steps[1])
        for i in range(w.size):
            x = np.uint64(w[i])
            below = top - np.int64((x >> exponent[0]) & exponent[1])
            kind = np.uint16(min(max(below, np.int64(0)), last))
            o[i] = np.uint16(kind * steps[0] + np.uint16((x >> fine[0]) & fine[1]) + level)


@kernel
def _mark(keyed: Keyed, seen: Classes) -> None:
    keys, shift, mask, levels, block = keyed
    # Unsigned numbers in this loop and those like it: numba looks at signed ones for a minus sign.
    for b in range(levels.size):
        i, end = np.uint64(b * block), np.uint64(min((b + 1) * block, keys.size))
        level = np.uint64(levels[b]) * (mask + np.uint64(1))
        while i < end:
            seen[level + ((np.uint64(keys[i]) >> shift) & mask)] = 1
            i += np.uint64(1)


@kernel
def _bit_lengths(values: Words, lengths_of: Classes, out: Classes) -> None:
    for i in range(values.size):
        rest, length = np.uint64(values[i]), np.int64(0)
        while rest > _LARGEST_SHORT:
            rest >>= _SHORT
            length += 16
        out[i] = length + np.int64(lengths_of[rest])


@kernel
def _means(lengths: Classes, classes: Classes, sums: NDArray[np.int64], out: NDArray[np.float64]) -> None:
    # Sums are in the lower 40 bits, counts above them; four tables as in _histogram.
    for i in range(lengths.size):
        sums[i & 3, classes[i]] += (np.int64(1) << 40) | np.int64(lengths[i])
    for k in range(out.size):
        both = sums[0, k] + sums[1, k] + sums[2, k] + sums[3, k]
        out[k] = float(both & ((np.int64(1) << 40) - 1)) / max(both >> 40, 1)


@kernel
def _excess(
    lengths: Classes, classes: Classes, block: int, means: NDArray[np.float64], out: NDArray[np.float64]
) -> float:
    # Half of a block differs from the other half by chance alone: the mean square is returned.
    chance = 0.0
    for b in range(out.size):
        first, last = b * block, min((b + 1) * block, lengths.size)
        w, x, y, z = 0.0, 0.0, 0.0, 0.0
        for i in range(first, last - 3, 4):
            w += lengths[i] - means[classes[i]]
            x += lengths[i + 1] - means[classes[i + 1]]
            y += lengths[i + 2] - means[classes[i + 2]]
            z += lengths[i + 3] - means[classes[i + 3]]
        for i in range(last - ((last - first) & 3), last):
            w += lengths[i] - means[classes[i]]
        size = max(last - first, 1)
        out[b] = (w + x + y + z) / size
        chance += ((w + x - y - z) / size) ** 2
    return chance / max(out.size, 1)


@course
def _activity(
    values: Words,
    magnitudes: NDArray[np.uint16],
    lengths_of: Classes,
    block: int,
    rooms: tuple[NDArray[np.int64], NDArray[np.int64], Classes, Classes],
    out: NDArray[np.float64],
    found: NDArray[np.float64],
) -> None:
    counts, sums, classes, lengths = rooms
    _histogram(magnitudes, counts)
    top, above = counts.shape[1], np.int64(0)
    while above <= magnitudes.size >> 12:
        top -= 1
        above += counts[0, top] + counts[1, top] + counts[2, top] + counts[3, top]
    _fold(magnitudes, top, sums.shape[1], classes)
    _bit_lengths(values, lengths_of, lengths)
    means = found[: sums.shape[1]]
    _means(lengths, classes, sums, means)
    found[sums.shape[1]], found[sums.shape[1] + 1] = top, _excess(lengths, classes, block, means, out)


@cache
def _lengths() -> NDArray[np.uint8]:
    """Return the bit length of each 16-bit number: a look-up is five times faster than counting."""
    return np.array([number.bit_length() for number in range(1 << 16)], np.uint8)


def histogram(numbers: NDArray[np.uint16], count: int) -> NDArray[np.int64]:
    """Return the count of each number below ``count``; all numbers must be below it."""
    out = np.zeros((4, count), np.int64)
    _histogram(numbers, out)
    total: NDArray[np.int64] = out.sum(axis=0)
    return total


def fold(magnitudes: NDArray[np.uint16], top: int, count: int) -> Classes:
    """Return ``top - magnitude`` clipped to ``0 .. count - 1``."""
    out = np.empty(magnitudes.size, np.uint8)
    _fold(magnitudes, top, count, out)
    return out


def fine_bits(words: Words, shift: int, bits: int) -> Classes:
    """Return ``bits`` bits of each word, above its lowest ``shift`` bits."""
    out = np.empty(words.size, np.uint8)
    _fine_bits(words, np.uint64(shift), np.uint64((1 << bits) - 1), out)
    return out


@dataclass(frozen=True)
class Levels:
    """A level below ``count`` for each block of ``block`` elements."""

    of_blocks: Classes
    count: int
    block: int


def combine(classes: Classes, levels: Levels, fine: Classes, fine_count: int) -> Contexts:
    """Return ``(class * levels.count + level of the block) * fine_count + fine`` of each element."""
    out = np.empty(classes.size, np.uint16)
    _combine(classes, levels.of_blocks, levels.count, levels.block, fine, fine_count, out)
    return out


_ONE_LEVEL = np.zeros(1, np.uint8)


@lru_cache(64)
def _themselves(count: int) -> Contexts:
    """Return the numbers below ``count``, and zeros up to a power of two; nobody may write to them."""
    numbers = np.zeros((1, 1 << max(count - 1, 1).bit_length()), np.uint16)
    numbers[0, :count] = np.arange(count)
    return numbers


@dataclass(frozen=True)
class ContextKeys:
    """The contexts of elements by some bits of a word and the level of its block.

    The context of element ``i`` in a block of level ``k`` is ``numbers[k, (words[i] >> shift) & mask]``;
    ``mask`` is the number of columns, a power of two, minus one.  ``count`` is the number of contexts.
    """

    words: NDArray[np.uint16]
    shift: int
    numbers: NDArray[np.uint16]
    levels: Levels
    count: int

    @classmethod
    def of(cls, contexts: Contexts, count: int) -> ContextKeys:
        """Return the keys of contexts below ``count`` that are known one by one."""
        return cls(contexts, 0, _themselves(count), Levels(_ONE_LEVEL, 1, max(contexts.size, 1)), count)

    @property
    def parts(self) -> Keyed:
        """All but the contexts, for kernels."""
        mask = np.uint64(self.numbers.shape[1] - 1)
        return self.words, np.uint64(self.shift), mask, self.levels.of_blocks, self.levels.block

    def grouped(self, kinds: NDArray[np.int64]) -> ContextKeys:
        """Return the keys with ``kinds[c]`` in place of context ``c``; ``kinds`` rise to the last one."""
        numbers = kinds.astype(np.uint16)[self.numbers]
        return ContextKeys(self.words, self.shift, numbers, self.levels, int(kinds[-1]) + 1)

    def seen(self, seen: Classes) -> NDArray[np.int64]:
        """Return the contexts, ascending, of the levels and keys that ``seen`` marks."""
        found = np.zeros(self.count, np.bool_)
        found[self.numbers.reshape(-1)[seen != 0]] = True
        return np.flatnonzero(found)

    def table(self, clusters: Classes) -> Classes:
        """Return the cluster of each level and key, from that of each context."""
        return np.ascontiguousarray(clusters[self.numbers]).reshape(-1)


def _field(shift: int, bits: int) -> tuple[np.uint64, np.uint64]:
    return np.uint64(shift), np.uint64((1 << bits) - 1)


def of_floats(
    words: Words,
    exponent: tuple[int, int],
    fine: tuple[int, int],
    top: int,
    count: int,
    levels: Levels,
) -> Contexts:
    """Compute ``combine(fold(exponents), ..., fine_bits)`` in one pass.

    ``exponent`` and ``fine`` are pairs of a shift and a number of bits; ``count`` is the number of classes.
    """
    fields = _field(*exponent), _field(*fine)
    fine_count = 1 << fine[1]
    steps = np.uint16(levels.count * fine_count), np.uint16(fine_count)
    out = np.empty(words.size, np.uint16)
    _of_floats(words, fields, (top, count), levels.of_blocks, levels.block, steps, out)
    return out


def lengths(values: Words) -> Classes:
    """Return the bit length of each value."""
    out = np.empty(values.size, np.uint8)
    _bit_lengths(values, _lengths(), out)
    return out


def activity(
    values: Words, magnitudes: NDArray[np.uint16], class_count: int, block: int
) -> tuple[int, NDArray[np.float64], float]:
    """Measure how long the values of each block are, beside others of their classes.

    A class is the magnitude of class 0, of which only one in 4096 of the ``magnitudes`` (below 2048) is
    larger, minus the magnitude, clipped to ``0 .. class_count - 1``.

    Returns:
        The magnitude of class 0; for each block the mean of its bit lengths minus the mean bit length of
        their classes; and the variance that these have by chance, if the words of a block have nothing in
        common.
    """
    size = values.size
    rooms = (
        *(np.zeros((4, _MAGNITUDES), np.int64), np.zeros((4, class_count), np.int64)),
        *(np.empty(size, np.uint8), np.empty(size, np.uint8)),
    )
    out, found = np.empty(-(-size // block)), np.empty(class_count + 2)
    _activity(values, magnitudes, _lengths(), block, rooms, out, found)
    return int(found[-2]), out, float(found[-1])
