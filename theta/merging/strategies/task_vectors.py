"""Differences to the base, thinned out, then added: the frame, and ``task_arithmetic``.

TIES, DARE, breadcrumbs and DELLA say which elements of each difference are kept, whether what is kept is
scaled to the absolute sum of the whole, and whether an element needs the consensus on its sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.numbers import total
from theta.merging.strategies.selection import Cut, magnitudes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Mask = NDArray[np.bool_]

_NO_SUM: Final = 1e-7


@dataclass(frozen=True)
class Stats:
    """What thinning out needs: where the largest end, and the factor of what is kept."""

    cuts: tuple[Cut, ...] = ()
    factors: tuple[float, ...] = ()
    majority: float = 1.0
    extra: Any = field(default=None, repr=False)


class TaskVectors(Method):
    """The frame; a method says which elements it keeps."""

    needs_base = True
    symmetric = True
    consensus: ClassVar[bool] = False
    """Whether an element counts only where its sign is that of the weighted sum."""

    def kept(self, job: Job, block: Block, stats: Stats) -> list[Mask] | None:
        """Which elements of each difference stay; none for all."""
        return None

    def cuts(self, job: Job) -> Stats:
        """The first pass: what :meth:`kept` needs."""
        return Stats()

    def thins(self, job: Job) -> bool:
        """Whether anything is left out at all."""
        return False

    def rescales(self, job: Job) -> bool:
        """Whether what is kept gets the absolute sum of the whole."""
        return bool(job.values.get("rescale")) and self.thins(job)

    def picks(self, job: Job) -> int | None:
        """The only input with a weight, where its difference is taken in full."""
        whole = job.count == 1 and job["lambda"] == 1 and not self.thins(job)
        return 0 if whole and (job["weight"] == [1.0] or self._divides(job)) else None

    def _divides(self, job: Job) -> bool:
        return bool(job.values.get("normalize"))

    def reduce(self, job: Job) -> Stats:
        """Cuts, then the factors that rescale."""
        stats = self.cuts(job)
        if not self.rescales(job):
            return stats

        def work(block: Block) -> list[float]:
            sums = [total(np.abs(delta)) for delta in block.deltas]
            return sums + [total(np.abs(delta)) for delta in self.thinned(job, block, stats)]

        sums = job.totals(work)
        pairs = zip(sums[: job.count], sums[job.count :], strict=True)
        factors = tuple(a / b if min(a, b) >= _NO_SUM else 1.0 for a, b in pairs)
        return Stats(stats.cuts, factors, stats.majority, stats.extra)

    def thinned(self, job: Job, block: Block, stats: Stats) -> list[Array]:
        """The differences with what is not kept at zero, and the rest rescaled."""
        masks = self.kept(job, block, stats) if self.thins(job) else None
        found = block.deltas
        if masks is not None:
            zero = job.wide.type(0)
            found = [np.where(mask, delta, zero) for mask, delta in zip(masks, found, strict=True)]
        if stats.factors:
            found = [values * job.wide.type(f) for values, f in zip(found, stats.factors, strict=True)]
        return found

    def merge(self, job: Job, block: Block, stats: Stats) -> Array:
        """Base plus ``lambda`` times the sum, or the consensus, of the weighted differences."""
        found = self.thinned(job, block, stats)
        mixed = self._agreed(job, found) if self.consensus else self._added(job, found)
        if job["lambda"] != 1:
            mixed = mixed * job.wide.type(job["lambda"])
        return block.base + mixed

    def _added(self, job: Job, found: Sequence[Array]) -> Array:
        return shared.combined(found, shared.shares(job["weight"], self._divides(job)))

    def _agreed(self, job: Job, found: Sequence[Array]) -> Array:
        """``sum(m_i w_i d_i) / sum(m_i w_i)``, m_i where the sign is that of ``sum(w_i d_i)``, + for zero."""
        weighted = [d * job.wide.type(w) if w != 1 else d for d, w in zip(found, job["weight"], strict=True)]
        up = sum(weighted[1:], start=weighted[0]) >= 0
        out, weight = np.zeros_like(found[0]), np.zeros_like(found[0])
        for values, w in zip(weighted, job["weight"], strict=True):
            agrees = np.where(up, values > 0, values < 0)
            out += np.where(agrees | np.isnan(values), values, 0)
            if self._divides(job):
                weight += agrees * job.wide.type(w)
        if self._divides(job):
            weight[weight == 0] = 1
            out /= weight
        return out


class TaskArithmetic(TaskVectors):
    """``base + lambda sum(w_i d_i)``, divided by ``sum(w_i)`` with ``normalize=true``."""

    name = "task_arithmetic"
    summary = "base + lambda sum(w_i d_i), d_i the difference of input i to the base"
    parameters = (shared.WEIGHT, shared.LAMBDA, shared.normalize(False))


def keys(block: Block) -> list[Array]:
    """The magnitudes of all differences, as bits."""
    return [magnitudes(delta) for delta in block.deltas]


def rows(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """A tensor as a matrix: rows along the first axis; one row where there are less than two axes."""
    return (shape[0], size // shape[0]) if len(shape) > 1 and shape[0] else (1, size)
