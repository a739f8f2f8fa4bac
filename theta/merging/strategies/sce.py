"""``sce``: select varying elements, calculate weights, erase disagreeing elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.numbers import dot
from theta.merging.strategies.parameters import Parameter
from theta.merging.strategies.selection import Cut, cuts, magnitudes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_NOTHING: Final = 1e-6


@dataclass(frozen=True)
class _Stats:
    cut: Cut | None
    weights: tuple[float, ...] = ()


class Sce(Method):
    """``base + sum(W_i m_i d_i) / max(sum(W_i m_i), 1e-6)``, ``W_i`` by the mean square of difference i.

    If nnz elements vary between the inputs, the ``int(select_topk nnz)`` with the largest variance are
    selected; ``m_i`` selects those of them whose sign is that of the sum.
    """

    name = "sce"
    summary = "weights by the squares of what varies most, signs elected"
    parameters = (Parameter("select_topk", "number", 1.0, "the share of varying elements that counts", 0, 1),)
    needs_base = True
    symmetric = True

    def reduce(self, job: Job) -> _Stats:
        """Return the cut below the largest variances, and the weights."""
        stats = _Stats(self._cut(job))

        def work(block: Block) -> list[float]:
            return [dot(delta, delta) for delta in self._selected(block, stats)]

        squares = job.totals(work)
        total = sum(squares)
        large = total / job.size >= _NOTHING
        weights = [square / total for square in squares] if large else [1 / job.count] * job.count
        return _Stats(stats.cut, tuple(weights))

    def _cut(self, job: Job) -> Cut | None:
        if job["select_topk"] >= 1:
            return None
        varying = int(job.totals(lambda block: [float(np.count_nonzero(_variance(block)))])[0])
        keys = lambda block: [magnitudes(_variance(block))]  # noqa: E731
        return cuts(job, keys, [(0, int(job["select_topk"] * varying))])[0]

    def _selected(self, block: Block, stats: _Stats) -> list[Array]:
        if stats.cut is None:
            return block.deltas
        mask = stats.cut.keep(magnitudes(_variance(block)), block.start)
        kind = block.base.dtype
        return [np.where(mask, delta, 0).astype(kind, copy=False) for delta in block.deltas]

    def merge(self, job: Job, block: Block, stats: _Stats) -> Array:
        """Return the base plus the weighted mean of the elements whose signs agree."""
        found = self._selected(block, stats)
        up = sum(found[1:], start=found[0]) >= 0
        out, weight = np.zeros_like(block.base), np.zeros_like(block.base)
        for delta, share in zip(found, stats.weights, strict=True):
            agrees = np.where(up, delta > 0, delta < 0)
            out += np.where(agrees | np.isnan(delta), delta, 0) * job.wide.type(share)
            weight += agrees * job.wide.type(share)
        merged: Array = block.base + out / np.maximum(weight, job.wide.type(_NOTHING))
        return merged


def _variance(block: Block) -> Array:
    """Return the population variance of each element over the differences."""
    deltas = block.deltas
    kind = deltas[0].dtype.type
    mean = sum(deltas[1:], start=deltas[0]) / kind(len(deltas))
    squares = [(delta - mean) ** 2 for delta in deltas]
    out: Array = sum(squares[1:], start=squares[0]) / kind(len(deltas))
    return out
