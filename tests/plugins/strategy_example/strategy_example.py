"""An example of strategy plug-ins for theta: ``even_reach`` and ``row_fisher``.

Where one branch trained much longer than another, its difference to the base drowns the other's.
``even_reach`` scales every difference of a tensor down to ``reach`` times the shortest one and adds the
mean of these to the base.  It is used like any other: ``theta merge -X even_reach:reach=1.5 BRANCH``.

``row_fisher`` weights each row of a tensor, such as that of a token, by the mean Fisher information that a
side has in it: ``theta merge -X row_fisher:kept=3 --statistics REV:PATH --statistics REV:PATH BRANCH``.  The
first ``kept`` rows of an embedding, which are those of special tokens, stay as ours has them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta.merging.strategies import BLOCK, Block, Job, Method, Parameter


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


class RowFisher(Method):
    """A strategy that sees statistics and rows.

    A side may have more rows than another one, or another dtype: theta gives the job the rows that its inputs
    have in common, in one dtype, with their statistics.  ``job.first_row`` tells where they are, and
    ``job.forms`` what dtype and shape each input has in its checkpoint.
    """

    name = "row_fisher"
    summary = "weights by the mean Fisher information of each row"
    parameters = (Parameter("kept", "whole", 0, "the number of the first rows that stay ours", 0),)
    uses_statistics = True
    statistics_by_element = True

    def reduce(self, job: Job) -> NDArray[Any] | None:
        """The share of each input in each row; None when a statistic is missing."""
        known = job.statistics(job.shape)
        if known is None or not job.size:
            return None
        width = _width(job)
        rows = job.scan(
            lambda block: [
                one.read(block.start, block.stop).reshape(-1, width).mean(axis=1, dtype=np.float64)
                for one in known
            ],
            max(BLOCK // width, 1) * width,
        )
        means = np.concatenate([np.array(found) for found in rows], axis=1)
        total = means.sum(axis=0)
        return np.where(total > 0, means / np.where(total > 0, total, 1), 1 / job.count)

    def merge(self, job: Job, block: Block, stats: NDArray[Any] | None) -> NDArray[Any]:
        """Each row of the block as the mean by its shares."""
        rows = np.arange(block.start, block.stop) // _width(job)
        shares = np.full((job.count, rows.size), 1 / job.count) if stats is None else stats[:, rows]
        if job.models[0] == 0:  # ours is the first input, if it is one
            of_ours = np.zeros((job.count, 1))
            of_ours[0] = 1
            shares = np.where(rows + job.first_row < job["kept"], of_ours, shares)
        mean: NDArray[Any] = np.einsum("ij,ij->j", shares, np.array(block.inputs, np.float64))
        return mean.astype(job.wide)


def _width(job: Job) -> int:
    return max(job.size // job.shape[0], 1) if len(job.shape) > 1 and job.shape[0] else max(job.size, 1)


def _square(values: NDArray[Any]) -> float:
    wide = values.astype(np.float64)
    return float((wide * wide).sum())
