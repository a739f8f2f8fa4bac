"""Methods that use statistics of the training data: ``fisher``, ``regmean`` and ``smear``.

A statistics checkpoint has its tensors under the same names: for ``fisher`` the mean squared gradients, in
the shape of the tensor; for ``regmean`` the inner products ``X^T X`` of the layer's inputs, ``[in, in]`` for
a weight ``[out, in]``; for ``smear`` one number, the share of the data that was routed to the expert.
Tensors without a statistic are averaged.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from theta._blas import one_thread
from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method, Statistic
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Fisher(Method):
    """``sum(w_i F_i x_i) / sum(w_i F_i)`` with ``F_i + epsilon`` for F_i; 0 if the denominator is 0."""

    name = "fisher"
    summary = "weights by the Fisher information of each element"
    parameters = (shared.WEIGHT, Parameter("epsilon", "number", 1e-6, "added to the information", 0))
    uses_statistics = True
    statistics_by_element = True
    symmetric = True

    def picks(self, job: Job) -> int | None:
        """Return the only input with a weight."""
        return 0 if job.count == 1 else None

    def keeps_equal(self, job: Job) -> bool:
        """Return whether all weights are positive, so that the mean of equal numbers is that number."""
        return bool(job["epsilon"] > 0)

    def reduce(self, job: Job) -> list[Statistic] | None:
        """Return the information of each input; None when one has none."""
        return job.statistics(job.shape)

    def merge(self, job: Job, block: Block, stats: list[Statistic] | None) -> Array:
        """Return the mean, weighted by element."""
        if stats is None:
            return shared.combined(block.inputs, shared.shares(job["weight"], True))
        out, below = np.zeros(block.stop - block.start), np.zeros(block.stop - block.start)
        for values, known, weight in zip(block.inputs, stats, job["weight"], strict=True):
            factor = (known.read(block.start, block.stop).astype(np.float64) + job["epsilon"]) * weight
            out += factor * values
            below += factor
        return (out / np.where(below == 0, 1, below)).astype(job.wide)


class RegMean(Method):
    """``W = [sum(G_i)^-1 sum(G_i W_i^T)]^T`` with ``G_i = alpha X^T X + (1 - alpha) diag(X^T X)``."""

    name = "regmean"
    summary = "the least-squares fit of each layer's outputs"
    parameters = (Parameter("alpha", "number", 0.9, "how much of what is off the diagonal counts", 0, 1),)
    uses_statistics = True
    symmetric = True

    def whole(self, job: Job) -> bool:
        """Return True: the whole matrix is the solution of a linear system."""
        return True

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Return the fit, or the mean if an input has no inner products."""
        width = job.shape[-1] if len(job.shape) == 2 else -1
        known = job.statistics((width, width)) if width > 0 else None
        if known is None:
            return shared.combined(block.inputs, [1 / job.count] * job.count)
        left, right = np.zeros((width, width)), np.zeros((width, job.shape[0]))
        with one_thread:
            for values, inner in zip(block.inputs, known, strict=True):
                wide = inner.read(0, width * width).reshape(width, width).astype(np.float64)
                shrunk = job["alpha"] * wide + (1 - job["alpha"]) * np.diag(np.diag(wide))
                left += shrunk
                right += shrunk @ values.reshape(job.shape).astype(np.float64).T
            out = _solved(left, right)
        return out.T.reshape(-1).astype(job.wide)


class Smear(Method):
    """``sum(p_i x_i) / sum(p_i)``, with p_i the routing weight of expert i (SMEAR, arXiv:2306.03745).

    SMEAR averages the experts of a layer for each input by what its router says; here the routing weights are
    those of the data, tracked while experts or adapters were used.
    """

    name = "smear"
    summary = "the mean of experts, by how much of the data is routed to each"
    uses_statistics = True
    symmetric = True

    def picks(self, job: Job) -> int | None:
        """Return the only input."""
        return 0 if job.count == 1 else None

    def keeps_equal(self, job: Job) -> bool:
        """Return True: no weight is negative, so that the mean of equal numbers is that number."""
        return True

    def reduce(self, job: Job) -> list[float]:
        """Return the share of each input; all alike if the routing weight of one is missing."""
        found = [job.inputs.statistic(number) for number in range(job.count)]
        known = [item for item in found if item is not None and math.prod(item.shape) == 1]
        if len(known) < job.count:
            return [1 / job.count] * job.count
        weights = [float(item.read(0, 1)[0]) for item in known]
        total = math.fsum(weights)
        if not (all(weight >= 0 for weight in weights) and 0 < total < math.inf):
            raise shared.undefined(job, "routing weights are positive numbers")
        return [weight / total for weight in weights]

    def merge(self, job: Job, block: Block, stats: list[float]) -> Array:
        """Return the mean, weighted by the shares ``stats``."""
        return shared.combined(block.inputs, stats)


def _solved(left: Array, right: Array) -> Array:
    try:
        return np.linalg.solve(left, right)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(left, right)[0]
