"""Methods for two inputs that decide by element: ``nearswap`` and ``arcee_fusion``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theta.merging.strategies import randomness
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_SAMPLE: Final = 1_000_000


class NearSwap(Method):
    """``w b + (1 - w) a`` with ``w = clip(t / max(|a - b|, 1e-6), 0, 1)``: theirs if both are near."""

    name = "nearswap"
    summary = "theirs where both are within t, less of it the farther apart"
    parameters = (Parameter("t", "number", None, "how near is near", 0, required=True),)
    min_inputs = max_inputs = 2

    def picks(self, job: Job) -> int | None:
        """Return ours if t is 0."""
        return 0 if job["t"] == 0 else None

    def keeps_equal(self, job: Job) -> bool:
        """Return True: interpolation keeps equal numbers."""
        return True

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Interpolate between both by their distance."""
        one, other = block.inputs
        kind = job.wide.type
        share = np.clip(kind(job["t"]) / np.maximum(np.abs(one - other), kind(1e-6)), 0, 1)
        out: Array = share * other + (1 - share) * one
        return out


class ArceeFusion(Method):
    """Take the important elements from theirs: ``a + (b - a) [I >= median + 1.5 (Q75 - Q25)]``.

    ``I = |b - a| KL(softmax(row of b) + 1e-8 | softmax(row of a) + 1e-8)``; quantile q of n elements is
    the sorted element ``int(q (n - 1))``.  Of more than a million elements a random million is used.
    """

    name = "arcee_fusion"
    summary = "take from theirs the elements whose change matters most"
    min_inputs = max_inputs = 2

    def whole(self, job: Job) -> bool:
        """Return True: rows and quantiles are those of the whole tensor."""
        return True

    def keeps_equal(self, job: Job) -> bool:
        """Return True: equal elements stay."""
        return True

    def reduce(self, job: Job) -> Array:
        """Return the mask of the elements that are taken from theirs."""
        one, other = job.whole().inputs
        found = importance(one.reshape(job.shape or (1,)), other.reshape(job.shape or (1,))).reshape(-1)
        sample = found
        if found.size > _SAMPLE:
            stream = randomness.bits(randomness.key(job.seed, job.strategy, job.name, 0), 0, _SAMPLE)
            sample = found[stream % np.uint64(found.size)]
        taken: Array = found >= threshold(sample)
        return taken

    def merge(self, job: Job, block: Block, stats: Array) -> Array:
        """Select theirs or ours by the mask, without computing a + (b - a)."""
        one, other = block.inputs
        return np.where(stats[block.start : block.stop], other, one)


def importance(one: Array, other: Array) -> Array:
    """Return the importance of each element, float64; rows are along the last axis."""
    left, right = _softmax(one) + 1e-8, _softmax(other) + 1e-8
    divergence = (right * np.log(right / left)).sum(axis=-1, keepdims=True)
    out: Array = np.abs(other.astype(np.float64) - one) * divergence
    return out


def _softmax(values: Array) -> Array:
    wide = values.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    out: Array = powers / powers.sum(axis=-1, keepdims=True)
    return out


def threshold(sample: Array) -> float:
    """Return the median plus 1.5 times the interquartile range."""
    ordered = np.sort(sample)
    low, middle, high = (float(ordered[int(q * (ordered.size - 1))]) for q in (0.25, 0.5, 0.75))
    return middle + 1.5 * (high - low)
