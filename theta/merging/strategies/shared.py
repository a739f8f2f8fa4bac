"""Parameters and sums that several strategies share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theta.errors import ThetaError
from theta.merging.strategies.method import Block, Job
from theta.merging.strategies.numbers import dot, two_multiplied
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

WEIGHT: Final = Parameter("weight", "number", 1.0, "how much each input counts", per_model=True)
DENSITY: Final = Parameter(
    "density", "number", 1.0, "the share of each difference that is kept", 0, 1, per_model=True
)
LAMBDA: Final = Parameter("lambda", "number", 1.0, "scales the merged difference")
RESCALE: Final = Parameter("rescale", "switch", True, "give what is kept the absolute sum of the whole")
USE_BASE: Final = Parameter("use_base", "switch", False, "merge the differences to the base, not the values")
VARIANT: Final = Parameter(
    "variant",
    "word",
    "mergekit",
    "where both differ, follow mergekit or the paper",
    words=("mergekit", "paper"),
)
_TINY: Final = 1e-8


def normalize(default: bool) -> Parameter:
    """Return the parameter ``normalize`` with this default."""
    return Parameter("normalize", "switch", default, "divide by the sum of the weights")


def shares(weights: Sequence[float], divide: bool) -> list[float]:
    """Return the weights, divided by their sum if ``divide`` and the sum is not nearly zero."""
    total = math.fsum(weights)
    if not divide or abs(total) < _TINY:
        return list(weights)
    return [weight / total for weight in weights]


def combined(values: Sequence[Array], factors: Sequence[float]) -> Array:
    """Return the sum of ``factors[i] * values[i]`` in order, in the dtype of the values."""
    kind = values[0].dtype.type
    total: Array = values[0] * kind(factors[0])
    for value, factor in zip(values[1:], factors[1:], strict=True):
        total += value * kind(factor)
    return total


def vectors(job: Job, block: Block) -> list[Array]:
    """Return the inputs, or with ``use_base`` their differences to the base."""
    return block.deltas if job["use_base"] else block.inputs


def gram(job: Job, *, deltas: bool) -> NDArray[np.float64]:
    """Return the matrix of dot products of all inputs, or of their differences to the base, in float64."""
    pairs = list(combinations_with_replacement(range(job.count), 2))

    def work(block: Block) -> list[float]:
        if not deltas and (known := two_multiplied(block.words.inputs, job.dtype)) is not None:
            return known
        found = block.deltas if deltas else block.inputs
        return [dot(found[i], found[k]) for i, k in pairs]

    out = np.zeros((job.count, job.count))
    for (i, k), value in zip(pairs, job.totals(work), strict=True):
        out[i, k] = out[k, i] = value
    return out


def undefined(job: Job, why: str) -> ThetaError:
    """Return the error for a tensor that the method cannot merge."""
    return ThetaError(
        f"{job.name}: {job.strategy} is not defined here: {why}",
        hint="settle this tensor with a rule of its own: --rule 'NAME=average'",
    )
