"""``ties``: trim, elect signs, merge the elements that agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from theta._kernels import mixing
from theta.errors import UsageError
from theta.merging.strategies import shared
from theta.merging.strategies.method import BLOCK, Block, Job
from theta.merging.strategies.numbers import total
from theta.merging.strategies.parameters import Parameter
from theta.merging.strategies.selection import Cut, cuts, magnitudes
from theta.merging.strategies.task_vectors import Stats, TaskVectors, keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Mask = NDArray[np.bool_]


class Ties(TaskVectors):
    """Keep the ``int(density n)`` largest of each difference (at least one), elect signs, average.

    ``variant=paper`` keeps the ``int(density n) + 1`` largest and all equal to the last, uses the sign of
    the whole tensor if a sum is zero, and takes the unweighted mean of the elements that agree.  The paper
    has one threshold for the whole model, theta one for each tensor.
    """

    name = "ties"
    summary = "trim each difference, elect signs, average what agrees"
    parameters = (
        shared.WEIGHT,
        shared.DENSITY,
        Parameter("rescale", "switch", False, shared.RESCALE.doc),
        shared.normalize(True),
        shared.LAMBDA,
        shared.VARIANT,
    )
    consensus = True

    def complete(self, values: Mapping[str, Any], count: int) -> Mapping[str, Any]:
        """Raise :class:`UsageError` for weights or rescaling in the paper's variant, which has none."""
        if values["variant"] == "paper" and any(weight != 1 for weight in values["weight"]):
            raise UsageError("ties of the paper has no weights", hint="leave weight or variant=paper out")
        if values["variant"] == "paper" and values["rescale"]:
            raise UsageError("ties of the paper rescales nothing", hint="leave rescale or variant=paper out")
        return values

    def thins(self, job: Job) -> bool:
        """Return whether a density is below one."""
        return any(density < 1 for density in job["density"])

    def cuts(self, job: Job) -> Stats:
        """Return the cuts below the largest elements, and the majority sign for the paper's variant."""
        paper = job["variant"] == "paper"
        ranks = [(n, _wanted(density, job.size) + paper) for n, density in enumerate(job["density"])]
        stats = Stats(tuple(cuts(job, keys, ranks, ties=paper))) if self.thins(job) else Stats()
        if not paper:
            return stats
        sums = job.totals(lambda block: [total(np.sign(sum(self.thinned(job, block, stats))))])
        return Stats(stats.cuts, majority=float(np.sign(sums[0])))

    def kept(self, job: Job, block: Block, stats: Stats) -> list[Mask]:
        """Return the masks of the largest elements."""
        return [cut.keep(magnitudes(d), block.start) for cut, d in zip(stats.cuts, block.deltas, strict=True)]

    def at_once(self, job: Job, block: Block, stats: Stats) -> Array | None:
        """Return the merged words of two large sides of bf16."""
        read = block.words
        if job.dtype != "bf16" or job.count != 2 or not _is_whole(block, stats) or job["variant"] == "paper":
            return None
        assert read.base is not None
        cuts, ties = _chosen(job, block, stats)
        rates = [*job["weight"], job["lambda"]]
        return mixing.elected_words(read.inputs, read.base, cuts, ties, rates, divide=bool(job["normalize"]))

    def merge(self, job: Job, block: Block, stats: Stats) -> Array:
        """Return the merged block of the chosen variant."""
        if job["variant"] != "paper":
            whole = _is_whole(block, stats)
            return _elected(job, block, stats) if whole else super().merge(job, block, stats)
        found = self.thinned(job, block, stats)
        sign = np.sign(sum(found[1:], start=found[0]))
        sign = np.where(sign == 0, job.wide.type(stats.majority), sign)
        chosen = [np.where(np.sign(values) == sign, values, 0) for values in found]
        number = sum((values != 0).astype(job.wide) for values in chosen)
        mean = sum(chosen[1:], start=chosen[0]) / np.maximum(number, 1)
        out: Array = block.base + job.wide.type(job["lambda"]) * mean
        return out


def _is_whole(block: Block, stats: Stats) -> bool:
    """Return whether a block is worth starting numba, and nothing is rescaled."""
    return block.stop - block.start == BLOCK and not stats.factors


def _chosen(job: Job, block: Block, stats: Stats) -> tuple[Array, Array]:
    """Return the cut of each input, and how many elements equal to it count in ``block``."""
    found = stats.cuts or (Cut(0),) * job.count
    keys = np.array([cut.key for cut in found], np.uint64 if job.wide == np.float64 else np.uint32)
    return keys, np.array([cut.ties(block.start) for cut in found], np.int64)


def _elected(job: Job, block: Block, stats: Stats) -> Array:
    """Compute :meth:`TaskVectors.merge` for TIES in one pass."""
    weights = np.array(job["weight"], job.wide)
    chosen = _chosen(job, block, stats)
    out = mixing.elect(np.array(block.deltas), *chosen, weights, divide=bool(job["normalize"]))
    if job["lambda"] != 1:
        out *= job.wide.type(job["lambda"])
    merged: Array = block.base + out
    return merged


def _wanted(density: float, size: int) -> int:
    """Return how many elements a density keeps: at least one, unless it is zero."""
    return max(int(density * size), 1) if density > 0 else 0
