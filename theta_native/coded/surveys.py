"""Surveys of chunks, which tell how their planes are best coded: long repetitions, frequencies of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel, pays, unwritable

Bytes = NDArray[np.uint8]
Groups = NDArray[np.uint64]
Integers = NDArray[np.int64]

MOST_SAMPLED: Final = 1 << 16
"""The bytes of the largest sample of a plane."""
SCALE: Final = 1 << 20
"""The factor of sums of ``n log2 n``: they are whole numbers, and the same everywhere."""

_ODD = np.uint64(0x9E3779B97F4A7C15)
_ONE_IN: Final = 64
_SHIFT = np.uint64(64 - (_ONE_IN.bit_length() - 1))


@dataclass(frozen=True)
class Sampling:
    """A sample of a plane: ``count`` slices of ``length`` bytes, ``stride`` bytes from one to the next."""

    count: int
    length: int
    stride: int

    @property
    def size(self) -> int:
        """The bytes of the sample."""
        return self.count * self.length

    def of(self, plane: Bytes) -> Bytes:
        """Return the sample of ``plane``."""
        if self.count == 1:
            return plane[: self.length]
        slices: Bytes = np.ndarray((self.count, self.length), np.uint8, plane.data, 0, (self.stride, 1))
        return slices.reshape(-1)


@dataclass(frozen=True)
class Survey:
    """The findings in a chunk.

    Attributes:
        marks: the number of runs of four groups of eight bytes that are marked, about one in 64.  A hash of
            its content marks a group, so that equal runs are marked together.
        distinct: the number of different runs among these.
        samples: some bytes of each plane.
        sums: for each of these, ``SCALE`` times the sum of ``n log2 n`` over the counts of its bytes.
    """

    marks: int
    distinct: int
    samples: Sequence[Bytes]
    sums: Sequence[int]


@kernel
def _distinct(marks: Groups, table: Groups) -> int:
    size = 2
    while size < 2 * marks.size:
        size <<= 1
    table[:size] = 0
    last, found = np.uint64(size - 1), 0
    for i in range(marks.size):
        h = max(marks[i], np.uint64(1))
        at = h & last
        while table[at] != 0 and table[at] != h:
            at = (at + np.uint64(1)) & last
        if table[at] == 0:
            table[at] = h
            found += 1
    return found


@kernel
def _sum(plane: Bytes, slices: Integers, products: Integers, tally: Integers, sample: Bytes) -> int:
    tally[:] = 0
    at = 0
    for n in range(slices[0]):
        part = plane[n * slices[2] : n * slices[2] + slices[1]]
        for i in range(part.size):
            tally[i & 1, part[i]] += 1
            sample[at + i] = part[i]
        at += part.size
    total = 0
    for value in range(256):
        total += products[tally[0, value] + tally[1, value]]
    return total


@kernel
def _survey(
    groups: Groups,
    planes: Bytes,
    starts: Integers,
    slices: Integers,
    products: Integers,
    scratch: tuple[Groups, Groups, Integers, Bytes],
    out: Integers,
) -> None:
    marks, table, tally, samples = scratch
    width, at = planes.shape[0], 0
    for chunk in range(slices.shape[0]):
        found, first, end = 0, starts[chunk] * width >> 3, starts[chunk + 1] * width >> 3
        most = max((end - first) // 4, 1)
        for i in range(first, end - 3):
            h = groups[i] * _ODD
            if h >> _SHIFT == 0 and found < most:
                for k in range(1, 4):
                    h = (h + groups[i + k]) * _ODD
                marks[found] = h
                found += 1
        out[chunk, 0], out[chunk, 1] = found, _distinct(marks[:found], table)
        for k in range(width):
            plane, size = planes[k, starts[chunk] : starts[chunk + 1]], slices[chunk, 0] * slices[chunk, 1]
            out[chunk, 2 + k] = _sum(plane, slices[chunk], products, tally, samples[at : at + size])
            at += size


@cache
def _products() -> Integers:
    counts = np.arange(MOST_SAMPLED + 1, dtype=np.float64)
    found: Integers = np.rint(SCALE * counts * np.log2(np.maximum(counts, 1))).astype(np.int64)
    found.flags.writeable = False
    return found


def sum_of(sample: Bytes) -> int:
    """Return the sum that a survey has for a plane with this sample."""
    return int(_products()[np.bincount(sample)].sum())


def _by_numpy(groups: Groups, planes: Bytes, slices: Sampling) -> Survey:
    marks = groups[:0]
    if groups.size >= 4:
        first = groups[:-3] * _ODD
        places = np.flatnonzero(first >> _SHIFT == 0)[: _most(groups.size)]
        marks = first[places]
        for k in range(1, 4):
            marks = (marks + groups[places + k]) * _ODD
    marks = np.sort(marks)
    distinct = int(marks.size > 0) + int(np.count_nonzero(marks[1:] != marks[:-1]))
    samples = [slices.of(plane) for plane in planes]
    return Survey(marks.size, distinct, samples, [*map(sum_of, samples)])


def _most(groups: int) -> int:
    """Return the most marks that are taken of so many groups: a hash may be the same everywhere."""
    return max(groups // 4, 1)


def survey(
    words: NDArray[np.unsignedinteger], planes: Bytes, starts: Sequence[int], slices: Sequence[Sampling]
) -> list[Survey]:
    """Survey chunks that stand one behind the other in ``words``.

    Args:
        words: the words of all chunks, C-contiguous.
        planes: their byte planes, shape ``(itemsize, size)``.
        starts: where each chunk begins in ``words``, a multiple of eight bytes, and where the last one ends.
        slices: the sample of the planes of each chunk, at most :data:`MOST_SAMPLED` bytes.
    """
    data, width = words.view(np.uint8), words.itemsize
    groups = unwritable(data[: data.size & ~7].view("<u8"))

    sizes = [one.size for one in slices]

    def arguments() -> tuple[Any, ...]:
        most = _most(max(end - start for start, end in pairwise(starts)) * width >> 3)
        # Two tables of counts, because adding to one that was just written has to wait for the store.
        scratch = np.empty(most, np.uint64), np.empty(4 * most, np.uint64), np.empty((2, 256), np.int64)
        samples = np.empty(sum(sizes) * width, np.uint8)
        layout = np.array([(one.count, one.length, one.stride) for one in slices])
        out = np.empty((len(slices), 2 + width), np.int64)
        return groups, planes, np.array(starts), layout, _products(), (*scratch, samples), out

    if not pays(_survey, words.size, arguments):
        ends = [start * width >> 3 for start in starts]
        return [
            _by_numpy(groups[ends[k] : ends[k + 1]], planes[:, starts[k] : starts[k + 1]], one)
            for k, one in enumerate(slices)
        ]
    *_, (*_, samples), out = given = arguments()
    _survey(*given)
    rows = iter(samples[at - size : at] for size, at in _each_end(sizes, width))
    return [Survey(marks, distinct, [*islice(rows, width)], sums) for marks, distinct, *sums in out.tolist()]


def _each_end(sizes: Sequence[int], times: int) -> Iterator[tuple[int, int]]:
    """Yield each size as often, and where as many bytes end, one behind the other."""
    end = 0
    for size in sizes:
        for _ in range(times):
            end += size
            yield size, end
