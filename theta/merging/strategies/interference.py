"""Methods that remove what disturbs the parts of a merged difference: ``opcm``, ``wudi``, ``doge_ta``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theta._blas import one_thread
from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Matrix = NDArray[np.float64]

_MOST_STEPS: Final = 10_000


class _OfMatrices(Method):
    """The base class of methods that merge the differences of a matrix as a whole, in float64."""

    needs_base = True

    def whole(self, job: Job) -> bool:
        """Return whether the tensor is a matrix."""
        return len(job.shape) == 2

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Return the base plus the merged difference."""
        deltas = [delta.astype(np.float64) for delta in block.deltas]
        if not all(np.isfinite(delta).all() for delta in deltas):
            raise shared.undefined(job, "a difference has NaN or infinity")
        if len(job.shape) == 2:
            with one_thread:
                found = self.mixed(job, [delta.reshape(job.shape) for delta in deltas]).reshape(-1)
        else:
            found = self.other(job, deltas, stats)
        out: Array = block.base + (found * job["lambda"]).astype(job.wide)
        return out

    def mixed(self, job: Job, deltas: list[Matrix]) -> Matrix:
        """Return the merged difference of a matrix."""
        raise NotImplementedError

    def other(self, job: Job, deltas: list[Matrix], stats: Any) -> Matrix:
        """Return the merged difference of a block of a tensor that is no matrix: the mean."""
        mean: Matrix = sum(deltas[1:], start=deltas[0]) / len(deltas)
        return mean


class Opcm(_OfMatrices):
    """A new contributor beside those that are merged already (OPCM, arXiv:2501.09522).

    With ``M = U S V^T`` the difference of ours, into which ``merged`` contributors went, and ``d`` that of
    theirs: the result is ``sqrt(merged) M + P(d)``, scaled to the mean length of all contributors.  ``P``
    leaves out the diagonal of ``U^T d V``, and its first r rows and columns where they meet, r being the
    number of singular values whose sum is at most ``alpha`` of all.  The paper's scale ``lambda_t`` comes
    from the norms of the whole model and is near ``sqrt(t)``; here each tensor has its own norm.
    """

    name = "opcm"
    summary = "theirs without what ours has already, beside it: contributors one by one"
    parameters = (
        Parameter("alpha", "number", 0.5, "the share of ours that theirs must not touch", 0, 1),
        Parameter("merged", "whole", 1, "the number of contributors in ours", 1, 1_000_000),
        shared.LAMBDA,
    )
    min_inputs = 2
    max_inputs = 2

    def reduce(self, job: Job) -> tuple[float, float]:
        """Return the factors of both differences for a tensor that is no matrix."""
        if len(job.shape) == 2:
            return 0.0, 0.0
        gram = shared.gram(job, deltas=True)
        before = math.sqrt(job["merged"])
        square = before**2 * gram[0, 0] + 2 * before * gram[0, 1] + gram[1, 1]
        scale = _scale(job, math.sqrt(gram[0, 0]), math.sqrt(gram[1, 1]), math.sqrt(max(square, 0.0)))
        return before * scale, scale

    def mixed(self, job: Job, deltas: list[Matrix]) -> Matrix:
        """Return both differences, the second projected away from the first, and scaled."""
        ours, theirs = deltas
        u, s, v = np.linalg.svd(ours, full_matrices=True)
        inner = u.T @ theirs @ v.T
        np.fill_diagonal(inner, 0)
        above = np.flatnonzero(np.cumsum(s) > job["alpha"] * s.sum())
        kept = int(above[0]) if above.size else 0
        inner[:kept, :kept] = 0
        found: Matrix = math.sqrt(job["merged"]) * ours + u @ inner @ v
        lengths = (float(np.linalg.norm(one)) for one in (ours, theirs, found))
        return found * _scale(job, *lengths)

    def other(self, job: Job, deltas: list[Matrix], stats: tuple[float, float]) -> Matrix:
        """Return both differences, scaled."""
        return deltas[0] * stats[0] + deltas[1] * stats[1]


def _scale(job: Job, ours: float, theirs: float, found: float) -> float:
    """Return what brings a difference of length ``found`` to the mean length of all contributors."""
    mean = (job["merged"] * ours + theirs) / (job["merged"] + 1)
    return mean / found if found else 0.0


class Wudi(_OfMatrices):
    """The difference that disturbs the inputs of no other task (WUDI, arXiv:2503.08099).

    Adam, ``steps`` times from ``sum(d_i)``, on ``sum_i |(d - d_i) d_i^T|^2 / |d_i|^2``.  What is no matrix
    gets the mean difference.
    """

    name = "wudi"
    summary = "the difference that disturbs the layers' inputs of each task least"
    parameters = (
        Parameter("steps", "whole", 300, "the steps of Adam", 0, _MOST_STEPS),
        Parameter("learning_rate", "number", 1e-5, "the length of a step", 0),
        shared.LAMBDA,
    )
    symmetric = True

    def mixed(self, job: Job, deltas: list[Matrix]) -> Matrix:
        """Return the optimised difference."""
        weights = [1 / square if (square := float(np.square(d).sum())) else 0.0 for d in deltas]
        grams = [weight * (delta.T @ delta) for weight, delta in zip(weights, deltas, strict=True)]
        inner: Matrix = sum(grams[1:], start=grams[0])
        parts = [delta @ gram for delta, gram in zip(deltas, grams, strict=True)]
        target: Matrix = sum(parts[1:], start=parts[0])
        start: Matrix = sum(deltas[1:], start=deltas[0])
        return _adam(start, lambda d: 2 * (d @ inner - target), job["steps"], job["learning_rate"])


class DogeTa(_OfMatrices):
    """Task arithmetic by adaptive projective gradient descent (DOGE TA, arXiv:2501.01230).

    A common ``D``, found by Adam in ``steps`` steps, is added to each difference; of each sum the elements
    stay at which the difference is among its ``density`` largest, and these are added with
    ``l_i = eta / |d_i|``.  ``D`` makes rows of the differences and their sum disturb each other least, by the
    sum over tasks i and rows j of ``<d_ij, (sum_k l_k (d_k + D) - d_i)_j>^2``.  Its gradient is taken without
    what lies in the space that the tasks share: ``1 / subspace`` of the left singular vectors of the leading
    ones of all tasks.  The authors' program cuts at ``density`` over the whole model, and theta each tensor.
    What is no matrix gets the mean difference.
    """

    name = "doge_ta"
    summary = "task arithmetic after a common correction outside of what the tasks share"
    parameters = (
        Parameter("eta", "number", 0.07, "the length of each difference in the sum", 0),
        Parameter("density", "number", 0.3, "the share of each difference that is kept", 0, 1),
        Parameter("subspace", "whole", 6, "the part of the singular vectors that are shared", 1, 1_000_000),
        Parameter("steps", "whole", 400, "the steps of Adam", 0, _MOST_STEPS),
        Parameter("learning_rate", "number", 1e-4, "the length of a step", 0),
        shared.LAMBDA,
    )
    symmetric = True

    def mixed(self, job: Job, deltas: list[Matrix]) -> Matrix:
        """Return the corrected sum."""
        factors = [job["eta"] / norm if (norm := float(np.linalg.norm(d))) else 0.0 for d in deltas]
        total: Matrix = np.einsum("k,kij->ij", factors, np.stack(deltas))
        outside = _outside(deltas, job["subspace"])

        def slope(common: Matrix) -> Matrix:
            merged = total + sum(factors) * common
            found = np.zeros_like(common)
            for delta in deltas:
                disturbed = (delta * (delta - merged)).sum(axis=1, keepdims=True)
                found -= 2 * sum(factors) * disturbed * delta
            return outside(found)

        common = _adam(np.zeros_like(total), slope, job["steps"], job["learning_rate"])
        kept = [_largest(delta, job["density"]) * (delta + common) for delta in deltas]
        found: Matrix = np.einsum("k,kij->ij", factors, np.stack(kept))
        return found


def _outside(deltas: list[Matrix], subspace: int) -> Callable[[Matrix], Matrix]:
    """Return what projects a matrix away from the left space that ``deltas`` share."""
    rank = min(deltas[0].shape)
    each = max(rank // len(deltas), 1)
    joined = np.concatenate([np.linalg.svd(d, full_matrices=False)[0][:, :each] for d in deltas], axis=1)
    basis = np.linalg.svd(joined, full_matrices=False)[0][:, : rank // subspace]
    return lambda matrix: matrix - basis @ (basis.T @ matrix)


def _largest(delta: Matrix, density: float) -> NDArray[np.bool_]:
    """Return the mask of the ``int(density n)`` elements of largest magnitude, and their equals."""
    sizes = np.abs(delta).reshape(-1)
    drop = sizes.size - int(density * sizes.size)
    if not drop:
        return np.ones(delta.shape, np.bool_)
    return np.asarray(np.abs(delta) >= np.partition(sizes, drop - 1)[drop - 1])


def _adam(start: Matrix, slope: Callable[[Matrix], Matrix], steps: int, rate: float) -> Matrix:
    """Return the point after ``steps`` of Adam (arXiv:1412.6980) with its usual constants."""
    point = start.copy()
    first, second = np.zeros_like(point), np.zeros_like(point)
    for step in range(1, steps + 1):
        found = slope(point)
        first += 0.1 * (found - first)
        second += 0.001 * (np.square(found) - second)
        root = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        point -= rate * (first / (1 - 0.9**step)) / root
    return point
