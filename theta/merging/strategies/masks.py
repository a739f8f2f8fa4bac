"""Methods that keep some elements of one merged difference: ``emr``, ``tall`` and ``consensus``.

With an ``input``, ``emr`` and ``tall`` give back one input from the merged difference and a mask of its own,
so that a branch of many tasks and the branches of each differ by masks only, which are stored as sparse
layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.numbers import total
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Mask = NDArray[np.bool_]

_TALL: Final = Parameter(
    "tall_lambda", "number", 0.4, "how strict the masks are; the paper tries 0.2 to 0.6", 0
)


class Emr(Method):
    """Elect, mask and rescale (arXiv:2405.17461): ``base + lambda u``, or ``base + r_i (M_i u)`` for input i.

    ``u`` has of each element the sign of ``sum(d_i)``, minus for zero, and the largest ``|d_i|`` of that
    sign.  ``M_i`` is where ``d_i`` has the sign of ``u``, ``r_i = sum|d_i| / sum|M_i u|``, of each tensor.
    """

    name = "emr"
    summary = "of each element the largest difference of the elected sign; or one input of it, masked"
    parameters = (
        shared.LAMBDA,
        Parameter("input", "whole", None, "the input to give back; none for all", 1, 1000),
    )
    needs_base = True

    def reduce(self, job: Job) -> float:
        """Return the factor: lambda, or that of one input."""
        number = _input(job)
        if number is None:
            return float(job["lambda"])

        def work(block: Block) -> list[float]:
            unified, own = _unified(block.deltas), block.deltas[number]
            return [total(np.abs(own)), total(np.abs(np.where(_agree(own, unified), unified, 0)))]

        whole, kept = job.totals(work) or [0.0, 0.0]
        return float(job["lambda"]) * (whole / kept if kept else 0.0)

    def merge(self, job: Job, block: Block, stats: float) -> Array:
        """Return the base plus the unified difference, or the part of it that one input has."""
        unified, number = _unified(block.deltas), _input(job)
        if number is not None:
            unified = np.where(_agree(block.deltas[number], unified), unified, job.wide.type(0))
        out: Array = block.base + unified * job.wide.type(stats)
        return out


class Tall(Method):
    """One input from the sum of all (TALL-masks, arXiv:2405.07813): ``base + m_i s`` with ``s = sum(d_i)``.

    ``m_i`` is where ``|d_i| > tall_lambda |s - d_i|``.
    """

    name = "tall"
    summary = "one input from the sum of all differences, by the mask of what matters to it"
    parameters = (
        Parameter("input", "whole", 1, "the input to give back: 1 is ours", 1, 1000),
        _TALL,
    )
    needs_base = True

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Return the base plus the masked sum."""
        merged = shared.combined(block.deltas, [1.0] * job.count)
        number = _input(job)
        assert number is not None
        mask = _matters(job, block.deltas[number], merged)
        out: Array = block.base + np.where(mask, merged, job.wide.type(0))
        return out


class Consensus(Method):
    """``base + lambda (m s)``, ``m`` where ``count`` masks of :class:`Tall` agree (arXiv:2405.07813)."""

    name = "consensus"
    summary = "the sum of the differences where it matters to several inputs"
    parameters = (
        _TALL,
        Parameter("count", "whole", 2, "the number of inputs that an element must matter to", 0, 1000),
        shared.LAMBDA,
    )
    needs_base = True
    symmetric = True

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Return the base plus the elements of the sum that several inputs need."""
        merged = shared.combined(block.deltas, [1.0] * job.count)
        votes = sum(_matters(job, delta, merged).astype(np.int16) for delta in block.deltas)
        kept = np.where(votes >= job["count"], merged, job.wide.type(0))
        out: Array = block.base + kept * job.wide.type(job["lambda"])
        return out


def _input(job: Job) -> int | None:
    """Return the number of the input that is wanted among those of the job; None for all."""
    if job["input"] is None:
        return None
    if job["input"] - 1 not in job.models:
        raise shared.undefined(job, f"input {job['input']} did not change it")
    return job.models.index(job["input"] - 1)


def _unified(deltas: list[Array]) -> Array:
    kind = deltas[0].dtype.type
    sign = np.where(sum(deltas[1:], start=deltas[0]) > 0, kind(1), kind(-1))
    largest = np.zeros_like(deltas[0])
    for delta in deltas:
        np.maximum(largest, np.where(delta * sign > 0, np.abs(delta), 0), out=largest)
    out: Array = largest * sign
    return out


def _agree(delta: Array, unified: Array) -> Mask:
    found: Mask = delta * unified > 0
    return found


def _matters(job: Job, delta: Array, merged: Array) -> Mask:
    found: Mask = np.abs(delta) > np.abs(merged - delta) * job.wide.type(job["tall_lambda"])
    return found
