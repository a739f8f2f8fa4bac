"""Weighted means of the values: ``linear`` and ``average``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from theta.errors import UsageError
from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.numbers import mean
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Linear(Method):
    """``sum(w_i x_i)``, divided by ``sum(w_i)`` unless ``normalize=false``."""

    name = "linear"
    summary = "sum(w_i x_i) / sum(w_i)"
    parameters = (
        shared.WEIGHT,
        shared.normalize(True),
        Parameter("alpha", "number", None, "the weight of ours, of two sides; theirs has the rest", 0, 1),
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

    def keeps_equal(self, job: Job) -> bool:
        """Return whether the shares add up to one, so that the mean of equal numbers is that number."""
        return abs(sum(_shares(job)) - 1) < 1e-9

    def at_once(self, job: Job, block: Block) -> NDArray[Any] | None:
        """Return the weighted sum of two sides whose shares add up to one."""
        return mean(block.words.inputs, _shares(job), job.dtype) if self.keeps_equal(job) else None

    def merge(self, job: Job, block: Block, stats: Any) -> NDArray[Any]:
        """Return the weighted sum."""
        return shared.combined(block.inputs, _shares(job))


class Average(Linear):
    """The mean of the inputs, optionally weighted."""

    name = "average"
    summary = "the mean of all sides; alpha=0.3 or weight=[...] weighs them"


def _shares(job: Job) -> list[float]:
    weights: list[float] = job["weight"]
    if job["normalize"] and abs(sum(weights)) < 1e-8:
        raise shared.undefined(job, "the weights add up to nothing")
    if job["alpha"] is not None and len(weights) == 2:
        return weights  # they add up to one except for rounding
    return shared.shares(weights, job["normalize"])
