"""``model_stock``: interpolate between base and mean by how well the differences agree."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.parameters import Parameter
from theta.merging.strategies.task_vectors import rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_NO_LENGTH: Final = 1e-6


class ModelStock(Method):
    """``t mean(x_i) + (1 - t) base``, ``t = N c / (1 + (N - 1) c)``, c the mean cosine of the differences.

    If the differences disagree, t is negative, or diverges near ``c = -1 / (N - 1)``, and the result would
    be on the other side of the base.  So t is clamped to 0 and 1, unless ``clamp=false``.
    """

    name = "model_stock"
    summary = "between base and mean, nearer to the mean the better differences agree"
    parameters = (
        Parameter("filter_wise", "switch", False, "a ratio for each row, not one for the tensor"),
        Parameter("clamp", "switch", True, "hold the ratio within 0 and 1"),
    )
    min_inputs = 2
    needs_base = True
    symmetric = True

    def whole(self, job: Job) -> bool:
        """Return whether ratios are computed by row: rows may cross blocks."""
        return bool(job["filter_wise"])

    def reduce(self, job: Job) -> float | None:
        """Return the ratio of the tensor; None for ratios by row."""
        if job["filter_wise"]:
            return None
        products = shared.gram(job, deltas=True)
        pairs = list(combinations(range(job.count), 2))
        dots = np.array([[products[i, k]] for i, k in pairs])
        squares = np.diag(products).reshape(-1, 1)
        return float(_ratios(job, dots, squares, pairs)[0])

    def merge(self, job: Job, block: Block, stats: float | None) -> Array:
        """Interpolate between base and mean."""
        ratio: Any = self._by_rows(job, block) if stats is None else job.wide.type(stats)
        mean = shared.combined(block.inputs, [1 / job.count] * job.count)
        out: Array = ratio * mean + (1 - ratio) * block.base
        return out

    def _by_rows(self, job: Job, block: Block) -> Array:
        shape = rows(job.shape, job.size)
        deltas = [delta.reshape(shape).astype(np.float64) for delta in block.deltas]
        pairs = list(combinations(range(job.count), 2))
        dots = np.array([(deltas[i] * deltas[k]).sum(axis=1) for i, k in pairs])
        squares = np.array([(delta * delta).sum(axis=1) for delta in deltas])
        return np.repeat(_ratios(job, dots, squares, pairs).astype(job.wide), shape[1])


def _ratios(job: Job, dots: Array, squares: Array, pairs: list[tuple[int, int]]) -> Array:
    """Return the ratio of each row.

    ``dots`` has a row of dot products for each pair, ``squares`` one of squared norms for each difference.
    """
    lengths = np.sqrt(squares)
    scale = np.array([lengths[i] * lengths[k] for i, k in pairs])
    cosine = np.clip(dots / np.maximum(scale, _NO_LENGTH), -1, 1).mean(axis=0)
    below = 1 + (job.count - 1) * cosine
    flat = np.abs(below) < 1e-12
    if not job["clamp"] and flat.any():
        raise shared.undefined(job, "the differences cancel out")
    ratios: Array = job.count * cosine / np.where(flat, 1, below)
    if not job["clamp"]:
        return ratios
    # If the denominator is not positive, the differences point apart, and the base is the result.
    held: Array = np.where(below < 1e-12, 0, np.clip(ratios, 0, 1)) + 0 * cosine
    return held
