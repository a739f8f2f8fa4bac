"""Dropping elements at random by their rank: ``della`` and ``della_linear``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from theta.errors import UsageError
from theta.merging.strategies import shared
from theta.merging.strategies.dare import drawn
from theta.merging.strategies.method import Block, Job
from theta.merging.strategies.parameters import Parameter
from theta.merging.strategies.task_vectors import Stats, TaskVectors, rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Mask = NDArray[np.bool_]


class _Della(TaskVectors):
    symmetric = False

    def complete(self, values: Mapping[str, Any], count: int) -> Mapping[str, Any]:
        """Raise :class:`UsageError` unless all probabilities are between 0 and 1."""
        for density, epsilon in zip(values["density"], values["epsilon"], strict=True):
            if 0 < density < 1 and not 0 < density - epsilon <= density + epsilon < 1:
                raise UsageError(
                    f"della needs density and epsilon that keep chances within 0 and 1, not {density:g} and"
                    f" {epsilon:g}",
                    hint="for instance density=0.5,epsilon=0.15",
                )
        return values

    def whole(self, job: Job) -> bool:
        """Return True: elements are ranked within rows, which may cross blocks."""
        return True

    def thins(self, job: Job) -> bool:
        """Return whether a density is below one."""
        return any(density < 1 for density in job["density"])

    def rescales(self, job: Job) -> bool:
        """Return False for the paper's variant, which has its own factors."""
        return job["variant"] != "paper" and super().rescales(job)

    def cuts(self, job: Job) -> Stats:
        """Return the masks of the whole tensor, and for the paper's variant its probabilities."""
        block = job.whole()
        chances = [
            keep_chances(delta.reshape(rows(job.shape, delta.size)), density, epsilon).reshape(-1)
            for delta, density, epsilon in zip(block.deltas, job["density"], job["epsilon"], strict=True)
        ]
        masks = [
            drawn(job, number, block, chance) for number, chance in zip(job.models, chances, strict=True)
        ]
        paper = job["variant"] == "paper" and job["rescale"]
        return Stats(extra=(masks, chances if paper else None))

    def kept(self, job: Job, block: Block, stats: Stats) -> list[Mask]:
        """Return the part of the masks in ``block``."""
        return [mask[block.start : block.stop] for mask in stats.extra[0]]

    def thinned(self, job: Job, block: Block, stats: Stats) -> list[Array]:
        """Divide each kept element by its probability in the paper's variant."""
        found = super().thinned(job, block, stats)
        chances = stats.extra[1]
        if chances is None:
            return found
        pairs = zip(found, chances, strict=True)
        return [(values / chance[block.start : block.stop]).astype(job.wide) for values, chance in pairs]


def _della_parameters(divides: bool) -> tuple[Parameter, ...]:
    return (
        shared.WEIGHT,
        Parameter("density", "number", 0.5, shared.DENSITY.doc, 0, 1, per_model=True),
        Parameter("epsilon", "number", 0.15, "how far chances reach around density", 0, 0.5, per_model=True),
        shared.RESCALE,
        shared.normalize(divides),
        shared.LAMBDA,
        shared.VARIANT,
    )


class Della(_Della):
    """Keep elements with a probability that grows with their rank within a row, then elect signs.

    ``p = (density - epsilon) + 2 epsilon (r - 1) / (c - 1)`` for rank r of c by ``|d|``; ``density`` for a
    row of one element.  Kept elements are rescaled to the absolute sum of all, or by ``1 / p`` for
    ``variant=paper``.
    """

    name = "della"
    summary = "drop small elements more often than large ones, elect signs"
    parameters = _della_parameters(True)
    consensus = True


class DellaLinear(_Della):
    """Thin out as :class:`Della`, then add."""

    name = "della_linear"
    summary = "drop small elements more often than large ones, add"
    parameters = _della_parameters(False)


def keep_chances(values: Array, density: float, epsilon: float) -> NDArray[np.float64]:
    """Return DELLA's probability to keep each element of the matrix ``values``, float64."""
    columns = values.shape[1]
    if columns < 2 or density in (0, 1):  # these keep nothing, and everything
        return np.full(values.shape, density)
    order = np.argsort(np.abs(values), axis=1, kind="stable")
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, np.arange(columns, dtype=np.float64), axis=1)
    chances: NDArray[np.float64] = (density - epsilon) + 2 * epsilon * ranks / (columns - 1)
    return chances
