"""Dropping the largest and the smallest differences: ``breadcrumbs`` and ``breadcrumbs_ties``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job
from theta.merging.strategies.parameters import Parameter
from theta.merging.strategies.selection import cuts, magnitudes
from theta.merging.strategies.task_vectors import Stats, TaskVectors, keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]


class _Breadcrumbs(TaskVectors):
    parameters = (
        shared.WEIGHT,
        shared.DENSITY,
        Parameter("gamma", "number", 0.01, "the share of the largest that is dropped", 0, 1, per_model=True),
        Parameter("rescale", "switch", False, shared.RESCALE.doc),
        shared.normalize(False),
        shared.LAMBDA,
    )

    def thins(self, job: Job) -> bool:
        """Return whether any element is dropped."""
        return any(d < 1 for d in job["density"]) or any(int(g * job.size) for g in job["gamma"])

    def cuts(self, job: Job) -> Stats:
        """Return two cuts for each difference: below the largest, and above the smallest elements."""
        ranks = []
        for number, (density, gamma) in enumerate(zip(job["density"], job["gamma"], strict=True)):
            top, bottom = ends(job.size, density, gamma)
            ranks += [(number, top), (number, job.size - bottom)]
        return Stats(tuple(cuts(job, keys, ranks)))

    def kept(self, job: Job, block: Block, stats: Stats) -> list[Mask]:
        """Return the elements between both cuts."""
        found = []
        for number, delta in enumerate(block.deltas):
            keys = magnitudes(delta)
            top, bottom = stats.cuts[2 * number : 2 * number + 2]
            found.append(bottom.keep(keys, block.start) & ~top.keep(keys, block.start))
        return found


class Breadcrumbs(_Breadcrumbs):
    """Drop the ``int(gamma n)`` largest and the smallest so that ``int(density n)`` are left, then add.

    If ``gamma n < 1``, mergekit drops everything; theta drops no large elements.
    """

    name = "breadcrumbs"
    summary = "drop the largest and the smallest differences, add the rest"


class BreadcrumbsTies(_Breadcrumbs):
    """Thin out as :class:`Breadcrumbs`, then elect signs as TIES."""

    name = "breadcrumbs_ties"
    summary = "drop the largest and the smallest differences, elect signs"
    consensus = True


def ends(size: int, density: float, gamma: float) -> tuple[int, int]:
    """Return how many of the largest and of the smallest elements breadcrumbs drops."""
    top = int(gamma * size)
    bottom = size - int(density * size) - top
    return (top, bottom) if bottom >= 0 else (max(top + bottom, 0), 0)
