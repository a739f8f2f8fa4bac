"""An example of a strategy plug-in for theta: ``even_reach``.

Where one branch trained much longer than another, its difference to the base drowns the other's.
``even_reach`` scales every difference of a tensor down to ``reach`` times the shortest one and adds the
mean of these to the base.  It is used like any other: ``theta merge -X even_reach:reach=1.5 BRANCH``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta.merging.strategies import Block, Job, Method, Parameter


class EvenReach(Method):
    """A strategy as theta wants it: a name, parameters, a look at the tensor, and one block at a time."""

    name = "even_reach"
    summary = "the mean of the differences, none much longer than the shortest"
    parameters = (Parameter("reach", "number", 1.0, "how much longer than the shortest", 1),)
    min_inputs = 2
    needs_base = True
    symmetric = True

    def reduce(self, job: Job) -> list[float]:
        """The first phase: the factor of each difference, from the norms of the whole tensor.

        ``job.totals`` adds up what is returned for each block, so that no tensor is ever held.
        """
        squares = job.totals(lambda block: [_square(delta) for delta in block.deltas])
        norms = [math.sqrt(square) for square in squares]
        limit = job["reach"] * min((norm for norm in norms if norm), default=0.0)
        return [min(1.0, limit / norm) if norm else 1.0 for norm in norms]

    def merge(self, job: Job, block: Block, stats: list[float]) -> NDArray[Any]:
        """The second phase: one block of the result, float32 (float64 where the tensor is)."""
        mean = np.zeros_like(block.base)
        for delta, factor in zip(block.deltas, stats, strict=True):
            mean += delta * job.wide.type(factor / job.count)
        return block.base + mean


def _square(values: NDArray[Any]) -> float:
    wide = values.astype(np.float64)
    return float((wide * wide).sum())
