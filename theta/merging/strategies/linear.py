"""Weighted means of the values: ``linear`` and ``average``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from theta.errors import UsageError
from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.numbers import two_combined
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray


_WEIGHTED: Final = (
    shared.WEIGHT,
    shared.normalize(True),
    Parameter("alpha", "number", None, "the weight of ours, of two sides; theirs has the rest", 0, 1),
)
_MERGEKIT: Final = "mergekit"


class Linear(Method):
    """``sum(w_i x_i)``, divided by ``sum(w_i)`` unless ``normalize=false``.

    With ``variant=mergekit`` the sum is rounded and divided as mergekit does it on processors with fused
    multiplication and addition: each product is added with one rounding, and the sum is divided at last.
    """

    name = "linear"
    summary = "sum(w_i x_i) / sum(w_i)"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        *_WEIGHTED,
        Parameter(
            "variant", "word", "theta", "round like mergekit, as recipe files do", words=("theta", _MERGEKIT)
        ),
    )
    symmetric = True

    def complete(self, values: Mapping[str, Any], count: int) -> Mapping[str, Any]:
        """Replace ``alpha`` by two weights."""
        alpha = values["alpha"]
        if alpha is None:
            return values
        if count != 2:
            raise UsageError(
                f"alpha is the weight of one of two sides, and here are {count}", hint="use weight=[...]"
            )
        if any(weight != 1 for weight in values["weight"]):
            raise UsageError("alpha and weight do not go together", hint="use weight=[...] alone")
        return {**values, "weight": [alpha, 1 - alpha], "normalize": True}

    def picks(self, job: Job) -> int | None:
        """Return the only input, if its share is one."""
        return 0 if job.count == 1 and _shares(job) == [1.0] else None

    def sorts(self, job: Job) -> bool:
        """Return whether the inputs are sorted by digest; mergekit rounds in the order of the recipe."""
        return not _is_fused(job)

    def keeps_equal(self, job: Job) -> bool:
        """Return whether the shares add up to one, so that the mean of equal numbers is that number."""
        return not _is_fused(job) and abs(sum(_shares(job)) - 1) < 1e-9

    def at_once(self, job: Job, block: Block, stats: Any) -> NDArray[Any] | None:
        """Return the weighted sum of two sides whose shares add up to one."""
        if not self.keeps_equal(job):
            return None
        return two_combined(block.words.inputs, _shares(job), job.dtype, keep_equal=True)

    def merge(self, job: Job, block: Block, stats: Any) -> NDArray[Any]:
        """Return the weighted sum."""
        if _is_fused(job):
            return _fused(block.inputs, job["weight"], divide=job["normalize"])
        return shared.combined(block.inputs, _shares(job))


class Average(Linear):
    """The mean of the inputs, optionally weighted."""

    name = "average"
    parameters = _WEIGHTED
    summary = "the mean of all sides; alpha=0.3 or weight=[...] weighs them"


def _shares(job: Job) -> list[float]:
    weights: list[float] = job["weight"]
    if job["normalize"] and abs(sum(weights)) < 1e-8:
        raise shared.undefined(job, "the weights add up to nothing")
    if job["alpha"] is not None and len(weights) == 2:
        return weights  # they add up to one except for rounding
    return shared.shares(weights, job["normalize"])


def _is_fused(job: Job) -> bool:
    return job.values.get("variant") == _MERGEKIT


def _fused(values: Sequence[NDArray[Any]], weights: Sequence[float], *, divide: bool) -> NDArray[Any]:
    """Return the sum of ``weights[i] * values[i]``, each added with one rounding; then divide it.

    A product of two float32 numbers is exact in float64.
    """
    kind = values[0].dtype.type
    total = np.zeros_like(values[0])
    for value, weight in zip(values, weights, strict=True):
        product = value.astype(np.float64)
        product *= np.float64(kind(weight))
        total = (total.astype(np.float64) + product).astype(kind)
    if divide:
        total /= sum(map(kind, weights), kind(0))
    return total
