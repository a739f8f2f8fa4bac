"""Spherical interpolation between two tensors: ``slerp`` and ``nuslerp``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.numbers import norm, two_combined
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_PARALLEL: Final = 0.9995
_NO_NORM: Final = 1e-8
_UNIT: Final = 1e-7
_NO_SINE: Final = 1e-8


class Slerp(Method):
    """``(sin((1-t)W) a + sin(tW) b) / sin W`` with the angle W between the whole tensors.

    Linear if ``|cos W| > 0.9995``; a vector shorter than 1e-8 is not normalised for the angle.
    """

    name = "slerp"
    summary = "(sin((1-t)W) a + sin(tW) b) / sin(W), W the angle between both"
    parameters = (Parameter("t", "number", 0.5, "0 is ours, 1 is theirs"),)
    min_inputs = max_inputs = 2

    def picks(self, job: Job) -> int | None:
        """Return ours for t = 0 and theirs for t = 1."""
        return {0.0: 0, 1.0: 1}.get(float(job["t"]))

    def reduce(self, job: Job) -> tuple[float, float]:
        """Return the factors of both inputs."""
        products = shared.gram(job, deltas=False)
        lengths = [norm(products[n, n]) for n in (0, 1)]
        scale = math.prod(length for length in lengths if length > _NO_NORM)
        return _factors(float(products[0, 1]) / scale, float(job["t"]))

    def at_once(self, job: Job, block: Block, stats: Any) -> Array | None:
        """Return the linear combination of two large inputs of bf16."""
        return two_combined(block.words.inputs, stats, job.dtype, keep_equal=False)

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Return the linear combination of both inputs."""
        return shared.combined(block.inputs, stats)


def _factors(cosine: float, t: float) -> tuple[float, float]:
    if not abs(cosine) <= _PARALLEL:
        return (1 - t, t) if cosine == cosine else (cosine, cosine)
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


class NuSlerp(Method):
    """slerp with weights, for whole tensors or by rows or columns, of values or differences.

    ``t = w_2 / (w_1 + w_2)`` (1/2 if the sum is below 1e-6); linear if ``|sin W| < 1e-8``.
    """

    name = "nuslerp"
    summary = "slerp with t = w_2 / (w_1 + w_2), whole or by rows"
    parameters = (
        shared.WEIGHT,
        Parameter("nuslerp_flatten", "switch", True, "one angle for the tensor, not one a vector"),
        Parameter("nuslerp_row_wise", "switch", False, "the vectors run along the first axis, not the last"),
        shared.USE_BASE,
    )
    min_inputs = max_inputs = 2

    def picks(self, job: Job) -> int | None:
        """Return the only input with a weight."""
        return 0 if job.count == 1 else None

    def whole(self, job: Job) -> bool:
        """Return whether each vector has its own angle: vectors may cross blocks."""
        return not job["nuslerp_flatten"]

    def reduce(self, job: Job) -> tuple[float, float] | None:
        """Return the factors of both inputs; None when each vector has its own angle."""
        if not job["nuslerp_flatten"]:
            return None
        products = shared.gram(job, deltas=job["use_base"])
        factors = _vector_factors(products[0, :1], products[0, 1:], products[1, 1:], _ratio(job))
        return float(factors[0][0]), float(factors[1][0])

    def at_once(self, job: Job, block: Block, stats: Any) -> Array | None:
        """Return the linear combination of two large inputs of bf16."""
        if stats is None or job["use_base"]:
            return None
        return two_combined(block.words.inputs, stats, job.dtype, keep_equal=False)

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Return the linear combination of both inputs, or of their differences to the base."""
        found = shared.vectors(job, block)
        out = shared.combined(found, stats) if stats else self._by_vectors(job, found)
        return block.base + out if job["use_base"] else out

    def _by_vectors(self, job: Job, found: list[Array]) -> Array:
        shape = job.shape or (1,)
        axis = 0 if job["nuslerp_row_wise"] else -1
        one, other = (np.moveaxis(values.reshape(shape), axis, -1) for values in found)
        wide = one.astype(np.float64), other.astype(np.float64)
        sums = [(a * b).sum(axis=-1) for a, b in ((wide[0], wide[0]), (wide[0], wide[1]), (wide[1], wide[1]))]
        left, right = _vector_factors(sums[0], sums[1], sums[2], _ratio(job))
        kind = one.dtype
        out = one * left.astype(kind)[..., None] + other * right.astype(kind)[..., None]
        flat: Array = np.moveaxis(out, -1, axis).reshape(-1)
        return flat


def _ratio(job: Job) -> float:
    total = sum(job["weight"])
    return 0.5 if abs(total) < 1e-6 else float(job["weight"][1] / total)


def _vector_factors(aa: Array, ab: Array, bb: Array, t: float) -> tuple[Array, Array]:
    """Return the factors of pairs of vectors a and b from their dot products, as two arrays."""
    lengths = np.maximum(np.sqrt(aa), _UNIT), np.maximum(np.sqrt(bb), _UNIT)
    angle = np.arccos(np.clip(ab / (lengths[0] * lengths[1]), -1, 1))
    sine = np.sin(angle)
    straight = np.abs(sine) < _NO_SINE
    sine = np.where(straight, 1, sine)
    left = np.where(straight, 1 - t, np.sin((1 - t) * angle) / sine)
    return left, np.where(straight, t, np.sin(t * angle) / sine)
