"""``ties``: trim, elect signs, merge what agrees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from theta._kernels import mixing
from theta.errors import UsageError
from theta.merging.strategies import shared
from theta.merging.strategies.method import BLOCK, Block, Job
from theta.merging.strategies.numbers import total
from theta.merging.strategies.selection import Cut, cuts, magnitudes
from theta.merging.strategies.task_vectors import Stats, TaskVectors, keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Mask = NDArray[np.bool_]


class Ties(TaskVectors):
    """Keep the ``int(density n)`` largest of each difference (one at least), elect signs, average.

    ``variant=paper``: the ``int(density n) + 1`` largest and all that equal the last; where the sum
    is zero the sign of the whole; the plain mean of what agrees.  The paper cuts the whole model at
    one threshold, theta each tensor.
    """

    name = "ties"
    summary = "trim each difference, elect signs, average what agrees"
    parameters = (
        shared.WEIGHT,
        shared.DENSITY,
        shared.normalize(True),
        shared.LAMBDA,
        shared.VARIANT,
    )
    consensus = True

    def complete(self, values: Mapping[str, Any], count: int) -> Mapping[str, Any]:
        """The paper has no weights."""
        if values["variant"] == "paper" and any(weight != 1 for weight in values["weight"]):
            raise UsageError("ties of the paper has no weights", hint="leave weight or variant=paper out")
        return values

    def thins(self, job: Job) -> bool:
        """Below a density of one."""
        return any(density < 1 for density in job["density"])

    def cuts(self, job: Job) -> Stats:
        """Where the largest of each difference end."""
        paper = job["variant"] == "paper"
        ranks = [(n, _wanted(density, job.size) + paper) for n, density in enumerate(job["density"])]
        stats = Stats(tuple(cuts(job, keys, ranks, ties=paper))) if self.thins(job) else Stats()
        if not paper:
            return stats
        sums = job.totals(lambda block: [total(np.sign(sum(self.thinned(job, block, stats))))])
        return Stats(stats.cuts, majority=float(np.sign(sums[0])))

    def kept(self, job: Job, block: Block, stats: Stats) -> list[Mask]:
        """The largest."""
        return [cut.keep(magnitudes(d), block.start) for cut, d in zip(stats.cuts, block.deltas, strict=True)]

    def merge(self, job: Job, block: Block, stats: Stats) -> Array:
        """The variant's consensus."""
        if job["variant"] != "paper":
            whole = block.stop - block.start == BLOCK  # worth a kernel, and the start of numba
            return _elected(job, block, stats) if whole else super().merge(job, block, stats)
        found = self.thinned(job, block, stats)
        sign = np.sign(sum(found[1:], start=found[0]))
        sign = np.where(sign == 0, job.wide.type(stats.majority), sign)
        chosen = [np.where(np.sign(values) == sign, values, 0) for values in found]
        number = sum((values != 0).astype(job.wide) for values in chosen)
        mean = sum(chosen[1:], start=chosen[0]) / np.maximum(number, 1)
        out: Array = block.base + job.wide.type(job["lambda"]) * mean
        return out


def _elected(job: Job, block: Block, stats: Stats) -> Array:
    """What :meth:`TaskVectors.merge` makes for TIES, in one pass."""
    found = stats.cuts or (Cut(0),) * job.count
    keys = np.array([cut.key for cut in found], np.uint64 if job.wide == np.float64 else np.uint32)
    ties = np.array([cut.ties(block.start) for cut in found], np.int64)
    weights = np.array(job["weight"], job.wide)
    out = mixing.elect(np.array(block.deltas), keys, ties, weights, divide=bool(job["normalize"]))
    if job["lambda"] != 1:
        out *= job.wide.type(job["lambda"])
    merged: Array = block.base + out
    return merged


def _wanted(density: float, size: int) -> int:
    """How many elements a density keeps: one at least, unless it is zero."""
    return max(int(density * size), 1) if density > 0 else 0
