"""Dropping elements at random: ``dare_linear`` and ``dare_ties``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from theta.merging.strategies import randomness, shared
from theta.merging.strategies.method import Block, Job
from theta.merging.strategies.task_vectors import Stats, TaskVectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Mask = NDArray[np.bool_]


class _Dare(TaskVectors):
    parameters = (
        shared.WEIGHT,
        shared.DENSITY,
        shared.RESCALE,
        shared.normalize(False),
        shared.LAMBDA,
        shared.VARIANT,
    )
    symmetric = False

    def thins(self, job: Job) -> bool:
        """Return whether a density is below one."""
        return any(density < 1 for density in job["density"])

    def rescales(self, job: Job) -> bool:
        """Return False for the paper's variant, which has its own factor."""
        return job["variant"] != "paper" and super().rescales(job)

    def cuts(self, job: Job) -> Stats:
        """Return the paper's factors for its variant."""
        if job["variant"] != "paper" or not job["rescale"]:
            return Stats()
        return Stats(factors=tuple(1 / density if density else 1.0 for density in job["density"]))

    def kept(self, job: Job, block: Block, stats: Stats) -> list[Mask]:
        """Keep each element with probability ``density``."""
        return [
            drawn(job, number, block, density)
            for number, density in zip(job.models, job["density"], strict=True)
        ]


class DareLinear(_Dare):
    """Keep each element with probability ``density``, rescale, add.

    The factor is ``|d|_1 / |kept|_1`` (1 if a sum is below 1e-7), or ``1 / density`` for ``variant=paper``.
    """

    name = "dare_linear"
    summary = "drop elements at random, rescale the rest, add"


class DareTies(_Dare):
    """Thin out as :class:`DareLinear`, then elect signs as TIES."""

    name = "dare_ties"
    summary = "drop elements at random, rescale the rest, elect signs"
    consensus = True


def drawn(job: Job, model: int, block: Block, chance: Any) -> Mask:
    """Return the mask of the kept elements; ``chance`` is one probability, or one for each element."""
    stream = randomness.key(job.seed, job.strategy, job.name, model)
    return randomness.below(stream, block.start, block.stop, chance)
