"""Statistics of the changes of two sides to one tensor, shown when the user is asked how to merge it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.merging.computing import in_batches
from theta.merging.reading import StoredInputs
from theta.merging.states import Conflict
from theta.merging.strategies import is_averaged
from theta.merging.strategies.method import BLOCK, Block, Job
from theta.merging.strategies.numbers import dot
from theta.store.odb.objects import Objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_COLUMNS: Final = 7


@dataclass(frozen=True)
class Measures:
    """Statistics of both sides' differences to the base, or to zero without a base.

    Attributes:
        base_norm: Euclidean norm of the base; None without one.
        ours_norm: Euclidean norm of our difference.
        theirs_norm: Euclidean norm of their difference.
        cosine: cosine similarity of both differences; None when one is zero.
        sign_agreement: fraction of the elements changed by both whose signs are equal; None without any.
        overlap: fraction of the changed elements that both changed; None without any.
    """

    base_norm: float | None
    ours_norm: float
    theirs_norm: float
    cosine: float | None
    sign_agreement: float | None
    overlap: float | None

    @property
    def ours_relative(self) -> float | None:
        """Norm of our difference over that of the base; None without a base or if it is zero."""
        return self.ours_norm / self.base_norm if self.base_norm else None

    @property
    def theirs_relative(self) -> float | None:
        """Norm of their difference over that of the base; None without a base or if it is zero."""
        return self.theirs_norm / self.base_norm if self.base_norm else None


def compare(objects: Objects, conflict: Conflict) -> Measures | None:
    """Compute the statistics, reading chunk by chunk.

    Returns None when a side lacks the tensor, dtypes or shapes differ, or the values cannot be averaged.
    """
    ours, theirs = conflict.ours, conflict.theirs
    if ours is None or theirs is None or (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return None
    if not is_averaged(ours.dtype) or conflict.coded is not None:
        return None
    base = conflict.base
    if base is not None and (base.dtype, base.shape) != (ours.dtype, ours.shape):
        base = None
    inputs = StoredInputs(objects, [ours, theirs], base)
    job = Job(ours.name, ours.dtype, ours.shape, {}, inputs, (0, 1), base is not None, parallel=in_batches)
    sums = job.totals(lambda block: _sums(block, job.has_base)) if job.size else [0.0] * _COLUMNS
    return _measures(sums, has_base=base is not None)


def _sums(block: Block, has_base: bool) -> list[float]:
    """Return sums over a block: squares of the base, ours and theirs, and the product of both differences.

    They are followed by counts of elements: changed by both, with equal signs, changed by either.
    """
    assert block.stop - block.start <= BLOCK
    with np.errstate(all="ignore"):
        one, other = block.deltas if has_base else block.inputs
        changed = one != 0, other != 0
        both = changed[0] & changed[1]
        alike = both & ((one > 0) == (other > 0))
        squares = [dot(block.base, block.base) if has_base else 0.0, dot(one, one), dot(other, other)]
        counts = [np.count_nonzero(mask) for mask in (both, alike, changed[0] | changed[1])]
        return [*squares, dot(one, other), *map(float, counts)]


def _measures(sums: list[float], *, has_base: bool) -> Measures:
    base, ours, theirs, product, both, alike, either = sums
    scale = math.sqrt(ours) * math.sqrt(theirs)
    return Measures(
        base_norm=math.sqrt(base) if has_base else None,
        ours_norm=math.sqrt(ours),
        theirs_norm=math.sqrt(theirs),
        cosine=max(-1.0, min(1.0, product / scale)) if scale else None,
        sign_agreement=alike / both if both else None,
        overlap=both / either if either else None,
    )
