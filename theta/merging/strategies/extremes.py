"""Methods that select or average the changes of each element: ``magmax``, ``ram``, ``ramplus_tl``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.numbers import total
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_EPSILON = Parameter("epsilon", "number", 1e-5, "a difference up to this is none", 0)


class MagMax(Method):
    """``base + lambda d``, with d the difference of largest magnitude, or the later of equal ones."""

    name = "magmax"
    summary = "of each element the largest difference, halved"
    parameters = (Parameter("lambda", "number", 0.5, "scales the difference"),)
    needs_base = True

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Return the base plus the scaled largest difference."""
        best = block.deltas[0]
        for delta in block.deltas[1:]:
            best = np.where(~(np.abs(delta) < np.abs(best)), delta, best)
        out: Array = block.base + best * job.wide.type(job["lambda"])
        return out


class Ram(Method):
    """Add an element's only change in full, or average the changes of the inputs that changed it."""

    name = "ram"
    summary = "unique changes in full, shared ones averaged"
    parameters: ClassVar[tuple[Parameter, ...]] = (_EPSILON,)
    needs_base = True
    symmetric = True

    def factors(self, job: Job) -> list[float]:
        """Return the factor for the unique changes of each input."""
        return [1.0] * job.count

    def reduce(self, job: Job) -> list[float]:
        """Return the factors of the inputs, computed once before the blocks."""
        return self.factors(job)

    def merge(self, job: Job, block: Block, stats: list[float]) -> Array:
        """Return the base plus unique and shared changes."""
        changed = _changed(job, block)
        number = _number(changed)
        out = np.zeros_like(block.base)
        shared = np.where(number > 1, number, 1).astype(job.wide)
        for delta, mask, factor in zip(block.deltas, changed, stats, strict=True):
            scaled = np.where(number == 1, delta * job.wide.type(factor), delta / shared)
            out += np.where(mask, scaled, 0)
        return block.base + out


class RamPlus(Ram):
    """RAM with unique changes scaled by ``1 + r clip(shared_i / max(unique_i, epsilon), 0, alpha)``."""

    name = "ramplus_tl"
    summary = "ram, with unique changes made larger where much is shared"
    parameters = (
        _EPSILON,
        Parameter("r", "number", 0.1, "how much larger"),
        Parameter("alpha", "number", 0.2, "the largest ratio of shared to unique that counts", 0),
    )

    def factors(self, job: Job) -> list[float]:
        """Return factors computed from the numbers of shared and unique elements of each input."""

        def work(block: Block) -> list[float]:
            changed = _changed(job, block)
            number = _number(changed)
            shared = [total(mask & (number > 1)) for mask in changed]
            return shared + [total(mask & (number == 1)) for mask in changed]

        counts = job.totals(work)
        found = []
        for shared, unique in zip(counts[: job.count], counts[job.count :], strict=True):
            ratio = shared / max(unique, job["epsilon"]) if shared else 0.0
            found.append(1 + job["r"] * min(max(ratio, 0.0), job["alpha"]))
        return found


def _changed(job: Job, block: Block) -> list[Array]:
    limit = job.wide.type(job["epsilon"])
    return [~(np.abs(delta) <= limit) for delta in block.deltas]


def _number(masks: list[Array]) -> Array:
    out: Array = sum(mask.astype(np.int16) for mask in masks)  # type: ignore[assignment]
    return out
