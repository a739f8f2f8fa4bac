"""The k largest elements of a tensor, exactly, without holding the tensor.

Absolute values are ordered like their bits.  The k-th largest is found 16 bits at a time, with a
histogram in each pass; of elements equal to it those with the lower index are taken first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theta._kernels import mixing
from theta.merging.strategies.method import BLOCK, Block, Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Counts = NDArray[np.integer[Any]]

_BINS: Final = 1 << 16

KeysOf = Callable[[Block], Sequence["Array"]]


@dataclass(frozen=True)
class Cut:
    """Where the k largest end: all above ``key``, and the first ``quota`` that equal it.

    ``before`` counts the equal ones ahead of each block, where not all of them are taken.
    """

    key: int
    quota: int | None = None
    before: NDArray[np.int64] | None = field(default=None, compare=False)

    def keep(self, keys: Array, start: int) -> NDArray[np.bool_]:
        """Which of ``keys``, those of the block that starts at element ``start``, are among the k largest."""
        if self.quota is None:
            reached: NDArray[np.bool_] = keys >= keys.dtype.type(self.key)
            return reached
        found: NDArray[np.bool_] = keys > keys.dtype.type(self.key)
        if (left := self.ties(start)) > 0:
            found[np.flatnonzero(keys == keys.dtype.type(self.key))[:left]] = True
        return found

    def ties(self, start: int) -> int:
        """How many elements that equal the key are taken from the block at element ``start``, at most."""
        if self.quota is None or self.before is None:
            return BLOCK
        return self.quota - int(self.before[start // BLOCK])


def magnitudes(values: Array) -> Array:
    """The bits of the absolute values: greater for greater ones, and greatest for NaNs."""
    if values.dtype == np.float64:
        wide: Array = values.view(np.uint64) & np.uint64((1 << 63) - 1)
        return wide
    bits: Array = values.view(np.uint32) & np.uint32((1 << 31) - 1)
    return bits


def cuts(job: Job, keys: KeysOf, ranks: Sequence[tuple[int, int]], *, ties: bool = False) -> list[Cut]:
    """For each (stream, k): where the k largest of stream number ``stream`` of ``keys`` end.

    Args:
        job: the tensor.
        keys: the keys of a block, an array of bits for each stream.
        ranks: streams and numbers of elements, from 0 to the number of elements.
        ties: take all that equal the k-th.
    """
    bits = job.wide.itemsize * 8
    found = [_Search(stream, k) for stream, k in ranks]
    active = [search for search in found if 0 < search.k < job.size]
    for shift in range(bits - 16, -1, -16):
        if active:
            _level(job, keys, active, shift)
    exact = [search for search in active if not ties and search.left < search.equal]
    _count_ties(job, keys, exact)
    return [_cut(search, job.size, bits) for search in found]


class _Search:
    """The bits of one cut that are known so far."""

    def __init__(self, stream: int, k: int) -> None:
        self.stream, self.k, self.left = stream, k, k
        self.prefix = self.equal = 0
        self.before: NDArray[np.int64] | None = None

    def narrow(self, counts: Counts) -> None:
        """Settle 16 bits by how often each value of them occurs below the bits that are known."""
        above = np.cumsum(counts[::-1])
        place = int(np.searchsorted(above, self.left))
        self.equal = int(counts[_BINS - 1 - place])
        self.left -= int(above[place]) - self.equal
        self.prefix = self.prefix << 16 | (_BINS - 1 - place)


def _cut(search: _Search, size: int, bits: int) -> Cut:
    if search.k <= 0:
        return Cut((1 << bits) - 1)  # no magnitude has the sign bit
    if search.k >= size:
        return Cut(0)
    return Cut(search.prefix, None if search.before is None else search.left, search.before)


def _level(job: Job, keys: KeysOf, active: Sequence[_Search], shift: int) -> None:
    """Find the 16 bits at ``shift`` of each search."""
    mine: dict[int, list[Counts]] = {}  # each thread has its own; sums of counts have no order
    kind = np.uint32 if job.size < 1 << 32 else np.int64  # the smaller table stays in a core's cache

    def work(block: Block) -> None:
        counts = mine.setdefault(get_ident(), [])
        counts += [np.zeros(_BINS, kind) for _ in active[len(counts) :]]
        streams = keys(block)
        for search, count in zip(active, counts, strict=True):
            add_histogram(streams[search.stream], shift, search.prefix, count)

    for _ in job.scan(work):
        pass
    for search, parts in zip(active, zip(*mine.values(), strict=True), strict=True):
        search.narrow(np.sum(parts, axis=0, dtype=np.int64))


def add_histogram(keys: Array, shift: int, prefix: int, out: Counts) -> None:
    """Count the 16 bits above ``shift`` of the keys with ``prefix`` above these, into ``out``."""
    if keys.size == BLOCK:  # a full block is worth a kernel, and the start of numba
        mixing.add_histogram(keys, shift, prefix, out)
        return
    wide = keys.astype(np.uint64) >> np.uint64(shift)
    chosen = wide[wide >> np.uint64(16) == prefix] & np.uint64(_BINS - 1)
    out += np.bincount(chosen.astype(np.int64), minlength=_BINS).astype(out.dtype)


def _count_ties(job: Job, keys: KeysOf, searches: Sequence[_Search]) -> None:
    """Count what equals the cut in each block, where only some of it is taken."""
    if not searches:
        return

    def work(block: Block) -> list[int]:
        streams = keys(block)
        return [int(np.count_nonzero(streams[s.stream] == s.prefix)) for s in searches]

    rows = np.array(list(job.scan(work)), np.int64).reshape(-1, len(searches))
    before = np.cumsum(rows, axis=0) - rows
    for search, column in zip(searches, before.T, strict=True):
        search.before = column
