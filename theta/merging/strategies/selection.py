"""Exact selection of the k largest elements of a tensor, without having it in memory.

Absolute values are ordered like their bits.  The k-th largest is found 16 bits at a time, with one
histogram for each pass.  Among elements equal to it, those with the lower index are selected.
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
    """The k largest elements: all above ``key``, and the first ``quota`` equal to it (None for all).

    ``before`` is the number of equal elements before each block.
    """

    key: int
    quota: int | None = None
    before: NDArray[np.int64] | None = field(default=None, compare=False)

    def keep(self, keys: Array, start: int) -> NDArray[np.bool_]:
        """Return the mask of the k largest for the ``keys`` of the block at element ``start``."""
        if self.quota is None:
            reached: NDArray[np.bool_] = keys >= keys.dtype.type(self.key)
            return reached
        found: NDArray[np.bool_] = keys > keys.dtype.type(self.key)
        if (left := self.ties(start)) > 0:
            found[np.flatnonzero(keys == keys.dtype.type(self.key))[:left]] = True
        return found

    def ties(self, start: int) -> int:
        """Return how many elements equal to the key are selected at most in the block at ``start``."""
        if self.quota is None or self.before is None:
            return BLOCK
        return self.quota - int(self.before[start // BLOCK])


def magnitudes(values: Array) -> Array:
    """Return the bits of the absolute values, which have the same order, NaNs largest."""
    if values.dtype == np.float64:
        wide: Array = values.view(np.uint64) & np.uint64((1 << 63) - 1)
        return wide
    bits: Array = values.view(np.uint32) & np.uint32((1 << 31) - 1)
    return bits


def cuts(job: Job, keys: KeysOf, ranks: Sequence[tuple[int, int]], *, ties: bool = False) -> list[Cut]:
    """Return the cut of the k largest keys for each (stream, k) of ``ranks``.

    Args:
        job: the tensor.
        keys: returns the keys of a block, one array of bits for each stream.
        ranks: pairs of a stream number and k, from 0 to the number of elements.
        ties: select all elements equal to the k-th.
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
    """The leading bits of one cut that are known so far."""

    def __init__(self, stream: int, k: int) -> None:
        self.stream, self.k, self.left = stream, k, k
        self.prefix = self.equal = 0
        self.before: NDArray[np.int64] | None = None

    def narrow(self, counts: Counts) -> None:
        """Determine 16 more bits from the histogram of their values among keys with the known prefix."""
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
    mine: dict[int, list[Counts]] = {}  # one for each thread; the order of their sum does not matter
    kind = np.uint32 if job.size < 1 << 32 else np.int64  # the smaller table fits a core's cache

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
    """Add to ``out`` the histogram of the 16 bits above ``shift`` of the keys whose prefix is ``prefix``."""
    if keys.size == BLOCK:  # a full block is worth starting numba
        mixing.add_histogram(keys, shift, prefix, out)
        return
    wide = keys.astype(np.uint64) >> np.uint64(shift)
    chosen = wide[wide >> np.uint64(16) == prefix] & np.uint64(_BINS - 1)
    out += np.bincount(chosen.astype(np.int64), minlength=_BINS).astype(out.dtype)


def _count_ties(job: Job, keys: KeysOf, searches: Sequence[_Search]) -> None:
    """Count the elements equal to the cut before each block, for searches that select only some."""
    if not searches:
        return

    def work(block: Block) -> list[int]:
        streams = keys(block)
        return [int(np.count_nonzero(streams[s.stream] == s.prefix)) for s in searches]

    rows = np.array(list(job.scan(work)), np.int64).reshape(-1, len(searches))
    before = np.cumsum(rows, axis=0) - rows
    for search, column in zip(searches, before.T, strict=True):
        search.before = column
