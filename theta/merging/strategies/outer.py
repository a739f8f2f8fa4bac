"""``outer``: the outer step of DiLoCo, and the momentum that it keeps for the next one.

Contributors train copies of the base and send their differences (A. Douillard et al., arXiv:2311.08105,
algorithm 1).  The mean of these is a gradient for SGD with Nesterov momentum (I. Sutskever et al., 2013), in
the form of ``torch.optim.SGD(nesterov=True)``::

    g = base - sum(w_i x_i) / sum(w_i)
    m = momentum m + g
    result = base - lr (g + momentum m)

``m`` is zero in the first round.  It is what the method keeps: a statistic for each element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method, Statistic
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Outer(Method):
    """``base - lr (g + momentum m)``; the module has the symbols."""

    name = "outer"
    summary = "DiLoCo's step from the mean of all differences, with a momentum that is kept"
    parameters = (
        Parameter("lr", "number", 0.7, "the learning rate of the step", 0),
        Parameter("momentum", "number", 0.9, "how much of the last steps goes on", 0, 1),
        shared.WEIGHT,
    )
    needs_base = True
    symmetric = True
    statistics_by_element = True
    keeps_statistic = True
    equal_agree = False

    def reduce(self, job: Job) -> Statistic | None:
        """Return the momentum of the last round; None in the first."""
        if job.dtype == "c64":
            raise shared.undefined(job, "a momentum is real")
        found = job.statistics(job.shape)  # the same one for each input
        return found[0] if found else None

    def merge(self, job: Job, block: Block, stats: Statistic | None) -> Array:
        """Return the base after the step."""
        factor, rate = job.wide.type(job["momentum"]), job.wide.type(job["lr"])
        gradient = _gradient(job, block)
        out: Array = block.base - rate * (gradient + factor * _momentum(job, block, gradient, stats))
        return out

    def keep(self, job: Job, block: Block, stats: Statistic | None) -> Array:
        """Return the momentum for the next round."""
        return _momentum(job, block, _gradient(job, block), stats)


def _gradient(job: Job, block: Block) -> Array:
    return -shared.combined(block.deltas, shared.shares(job["weight"], True))


def _momentum(job: Job, block: Block, gradient: Array, before: Statistic | None) -> Array:
    if before is None:
        return gradient
    last = before.read(block.start, block.stop).astype(job.wide)
    out: Array = job.wide.type(job["momentum"]) * last + gradient
    return out
