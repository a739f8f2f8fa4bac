"""Methods that thin out the differences to the base and add them; ``task_arithmetic``.

TIES, DARE, breadcrumbs and DELLA define which elements of each difference are kept, whether these are
rescaled to the absolute sum of all, and whether their signs must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.numbers import gaps, total
from theta.merging.strategies.selection import Cut, magnitudes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Mask = NDArray[np.bool_]

_NO_SUM: Final = 1e-7


@dataclass(frozen=True)
class Stats:
    """The results of the first pass.

    Attributes:
        cuts: the cuts that :meth:`TaskVectors.kept` uses.
        factors: the factor of the kept elements of each difference; empty without rescaling.
        majority: the sign of an element whose sum is zero, in the paper's TIES.
        extra: anything else that a method needs.
    """

    cuts: tuple[Cut, ...] = ()
    factors: tuple[float, ...] = ()
    majority: float = 1.0
    extra: Any = field(default=None, repr=False)


class TaskVectors(Method):
    """The base class; a method defines which elements it keeps."""

    needs_base = True
    symmetric = True
    consensus: ClassVar[bool] = False
    """Whether an element counts only if its sign is that of the weighted sum."""

    def kept(self, job: Job, block: Block, stats: Stats) -> list[Mask] | None:
        """Return the mask of the kept elements of each difference; None to keep all."""
        return None

    def cuts(self, job: Job) -> Stats:
        """Compute what :meth:`kept` needs, in the first pass."""
        return Stats()

    def thins(self, job: Job) -> bool:
        """Return whether any element is dropped."""
        return False

    def rescales(self, job: Job) -> bool:
        """Return whether kept elements are rescaled to the absolute sum of all."""
        return bool(job.values.get("rescale")) and self.thins(job)

    def picks(self, job: Job) -> int | None:
        """Return the only input with a weight, if its difference is added in full."""
        whole = job.count == 1 and job["lambda"] == 1 and not self.thins(job)
        return 0 if whole and (job["weight"] == [1.0] or self._divides(job)) else None

    def _divides(self, job: Job) -> bool:
        return bool(job.values.get("normalize"))

    def reduce(self, job: Job) -> Stats:
        """Compute the cuts, then the factors for rescaling."""
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
        """Return the differences with dropped elements set to zero and the others rescaled."""
        masks = self.kept(job, block, stats) if self.thins(job) else None
        found = block.deltas
        if masks is not None:
            zero = job.wide.type(0)
            found = [np.where(mask, delta, zero) for mask, delta in zip(masks, found, strict=True)]
        if stats.factors:
            found = [values * job.wide.type(f) for values, f in zip(found, stats.factors, strict=True)]
        return found

    def merge(self, job: Job, block: Block, stats: Stats) -> Array:
        """Return the base plus ``lambda`` times the sum, or the consensus, of the weighted differences."""
        found = self.thinned(job, block, stats)
        mixed = self._agreed(job, found) if self.consensus else self._added(job, found)
        if job["lambda"] != 1:
            mixed = mixed * job.wide.type(job["lambda"])
        return block.base + mixed

    def _added(self, job: Job, found: Sequence[Array]) -> Array:
        return shared.combined(found, shared.shares(job["weight"], self._divides(job)))

    def _agreed(self, job: Job, found: Sequence[Array]) -> Array:
        """Return ``sum(m_i w_i d_i) / sum(m_i w_i)``; m_i is 1 if the sign is that of ``sum(w_i d_i)``."""
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
    """Return the magnitudes of all differences as bits."""
    base = block.words.base
    assert base is not None
    found = [gaps(words, base, block.dtype) for words in block.words.inputs]
    known = [bits for bits in found if bits is not None]
    return known if len(known) == len(found) else [magnitudes(delta) for delta in block.deltas]


def rows(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Return (rows, columns) of a tensor as a matrix: rows are along the first axis of two or more."""
    return (shape[0], size // shape[0]) if len(shape) > 1 and shape[0] else (1, size)
