"""Random drops: ``dare_linear`` and ``dare_ties``."""

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
        """Below a density of one."""
        return any(density < 1 for density in job["density"])

    def rescales(self, job: Job) -> bool:
        """By sums unless the paper's factor is wanted."""
        return job["variant"] != "paper" and super().rescales(job)

    def cuts(self, job: Job) -> Stats:
        """The paper's factors are known at once."""
        if job["variant"] != "paper" or not job["rescale"]:
            return Stats()
        return Stats(factors=tuple(1 / density if density else 1.0 for density in job["density"]))

    def kept(self, job: Job, block: Block, stats: Stats) -> list[Mask]:
        """Each element with the chance of ``density``."""
        return [
            drawn(job, number, block, density)
            for number, density in zip(job.models, job["density"], strict=True)
        ]


class DareLinear(_Dare):
    """Keep each element with the chance ``density``, rescale, add.

    The factor is ``|d|_1 / |kept|_1`` (none below 1e-7); ``variant=paper``: ``1 / density``.
    """

    name = "dare_linear"
    summary = "drop elements at random, rescale the rest, add"


class DareTies(_Dare):
    """DARE's thinning with the consensus of TIES."""

    name = "dare_ties"
    summary = "drop elements at random, rescale the rest, elect signs"
    consensus = True


def drawn(job: Job, model: int, block: Block, chance: Any) -> Mask:
    """Which elements of a model's difference are kept, with ``chance`` (one, or one an element)."""
    stream = randomness.key(job.seed, job.strategy, job.name, model)
    return randomness.below(stream, block.start, block.stop, chance)
