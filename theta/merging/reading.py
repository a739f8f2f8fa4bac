"""Reading the inputs of a merge from the repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from theta.merging.strategies import is_averaged
from theta.merging.strategies.method import Read, Statistic
from theta.merging.strategies.numbers import widen
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.read.coming_file import Place
from theta.store.read.stored_tensor import KEPT, StoredTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KEPT_WHOLE: Final = 80 << 20
"""Size in bytes of the largest tensor whose chunks are all cached for later passes."""
SHARED: Final = 32 << 20
"""Size in bytes of the largest tensor that is computed on one thread."""


def opened(objects: Objects, line: Line, place: Place | None = None) -> StoredTensor:
    """Open a version of a tensor and cache its chunks for later passes."""
    kept = line.nbytes if line.nbytes <= KEPT_WHOLE else KEPT
    return StoredTensor(objects, line, place, kept=kept)


class StoredInputs:
    """The stored inputs of the merge of one tensor; implements ``strategies.method.Inputs``."""

    def __init__(
        self,
        objects: Objects,
        sides: Sequence[Line],
        base: Line | None,
        statistics: Sequence[Line | None] = (),
        places: Sequence[Place | None] = (),
    ) -> None:
        found = places or [None] * len(sides)
        self.sides = [opened(objects, *pair) for pair in zip(sides, found, strict=True)]
        self.base = opened(objects, base) if base is not None else None
        self._statistics = [_statistic(objects, line) for line in statistics]

    def read(self, start: int, stop: int) -> Read:
        """Return the elements ``start:stop`` of each side and of the base."""
        base = None if self.base is None else self.base.read(start, stop)
        return Read(tuple(side.read(start, stop) for side in self.sides), base)

    def statistic(self, number: int) -> Statistic | None:
        """Return the statistic of input ``number``; None when it has none of a float dtype."""
        return self._statistics[number] if self._statistics else None


class StoredStatistic:
    """A stored tensor of floats whose values are weights of a merge."""

    def __init__(self, objects: Objects, line: Line) -> None:
        self._stored = opened(objects, line)
        self.shape = line.shape

    def read(self, start: int, stop: int) -> Array:
        """Return the values of the elements ``start:stop``."""
        return widen(self._stored.read(start, stop), self._stored.line.dtype)


def _statistic(objects: Objects, line: Line | None) -> StoredStatistic | None:
    if line is None or not is_averaged(line.dtype) or line.dtype == "c64":
        return None
    return StoredStatistic(objects, line)
