"""Means on the sphere: ``multislerp`` and ``karcher``.

The results are linear combinations of the inputs.  Their coefficients are computed from the dot products
of the inputs, so the tensors are read twice: for these, and for the combination.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Coefficients = NDArray[np.float64]

_NOTHING: Final = 1e-8


class MultiSlerp(Method):
    """The weighted mean of the directions, with the weighted mean of the lengths.

    ``u_i = x_i / (|x_i| + eps)``, ``m = sum(w_i u_i) / |sum(w_i u_i)|``, the result
    ``m cos(eps) sum(w_i |x_i|)``.  The tangents at ``m`` that the method adds cancel out, because
    ``sum(w_i (u_i - <u_i, m> m)) = 0``.
    """

    name = "multislerp"
    summary = "the mean direction of all inputs with their mean length"
    parameters = (
        shared.WEIGHT,
        Parameter("normalize_weights", "switch", True, "divide the weights by their sum"),
        Parameter("eps", "number", 1e-8, "added to lengths", 0, 1),
        shared.USE_BASE,
    )
    symmetric = True

    def picks(self, job: Job) -> int | None:
        """Return the only input, if its share is one."""
        return (
            0 if job.count == 1 and shared.shares(job["weight"], job["normalize_weights"]) == [1.0] else None
        )

    def reduce(self, job: Job) -> Coefficients:
        """Return the factor of each input."""
        weights = np.array(shared.shares(job["weight"], job["normalize_weights"]))
        products = shared.gram(job, deltas=job["use_base"])
        lengths = np.sqrt(np.diag(products))
        toward = weights / (lengths + job["eps"])
        length = math.sqrt(max(float(toward @ products @ toward), 0.0))
        if length < _NOTHING:
            if job.count == 2:
                return weights
            raise shared.undefined(job, "the directions cancel out")
        factors: Coefficients = toward / length * (math.cos(job["eps"]) * float(weights @ lengths))
        return factors

    def merge(self, job: Job, block: Block, stats: Coefficients) -> Array:
        """Return the linear combination of the inputs, or of their differences to the base."""
        out = shared.combined(shared.vectors(job, block), stats.tolist())
        return block.base + out if job["use_base"] else out


class Karcher(Method):
    """The Riemannian mean of the directions, with the mean of the lengths.

    It starts at the normalised mean ``u`` of ``u_i = x_i / |x_i|`` and moves along the mean ``T`` of the
    logarithms ``phi_i / sin(phi_i) (u_i - cos(phi_i) u)`` until ``|T| < tol``.
    """

    name = "karcher"
    summary = "the mean on the sphere of the directions, with the mean length"
    parameters = (
        Parameter("max_iter", "whole", 10, "steps at most", 1, 10000),
        Parameter("tol", "number", 1e-5, "the step that ends it", 0, 1),
    )
    symmetric = True

    def reduce(self, job: Job) -> Coefficients:
        """Return the factor of each input."""
        products = shared.gram(job, deltas=False)
        lengths = np.sqrt(np.diag(products))
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = lengths > job["tol"]
            scale = np.where(kept, 1 / lengths, 0)
        if not kept.any():
            return np.full(job.count, 1 / job.count)
        alpha = kept / kept.sum()
        mean = _mean_direction(products * np.outer(scale, scale), alpha, job["max_iter"], job["tol"])
        factors: Coefficients = mean * scale * float(alpha @ lengths)
        return factors

    def merge(self, job: Job, block: Block, stats: Coefficients) -> Array:
        """Return the linear combination of the inputs."""
        return shared.combined(block.inputs, stats.tolist())


def _mean_direction(cosines: Coefficients, alpha: Coefficients, steps: int, tol: float) -> Coefficients:
    """Return the coefficients of the mean of unit vectors with the dot products ``cosines``."""
    length = _length(alpha, cosines)
    if length <= tol:  # opposite directions have no mean; take the first
        first: Coefficients = np.eye(alpha.size)[int(np.argmax(alpha > 0))]
        return first
    mean = alpha / length
    for _ in range(steps):
        along = np.clip(cosines @ mean, -1, 1)
        angle = np.arccos(along)
        far = (angle >= tol) & (np.sin(angle) > 1e-12)
        with np.errstate(divide="ignore", invalid="ignore"):
            pull = np.where(far, alpha * angle / np.sin(angle), 0)
        step = pull - float(pull @ along) * mean
        size = _length(step, cosines)
        if size < tol:
            break
        mean = math.cos(size) * mean + math.sin(size) / size * step
        mean = mean / _length(mean, cosines)
    return mean


def _length(coefficients: Coefficients, products: Coefficients) -> float:
    return math.sqrt(max(float(coefficients @ products @ coefficients), 0.0))
