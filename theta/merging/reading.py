"""The inputs of a merge, read from the repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from theta.merging.strategies import is_averaged
from theta.merging.strategies.method import Read, Statistic
from theta.merging.strategies.numbers import widen
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.read.stored_tensor import KEPT, Place, StoredTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KEPT_WHOLE: Final = 80 << 20
"""Bytes of the largest tensor whose chunks are all kept for the passes that follow."""
SHARED: Final = 32 << 20
"""Bytes of the largest tensor that one thread works on alone."""


def opened(objects: Objects, line: Line, place: Place | None = None) -> StoredTensor:
    """One version of a tensor, whose chunks are kept for the passes that follow."""
    kept = line.nbytes if line.nbytes <= KEPT_WHOLE else KEPT
    return StoredTensor(objects, line, place, kept=kept)


class StoredInputs:
    """The inputs of one tensor's merge (``strategies.method.Inputs``), read from the repository."""

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
        """The elements from ``start`` to before ``stop`` of each side, and of the base."""
        base = None if self.base is None else self.base.read(start, stop)
        return Read(tuple(side.read(start, stop) for side in self.sides), base)

    def statistic(self, number: int) -> Statistic | None:
        """The statistic of input ``number``; none without one that is of floats."""
        return self._statistics[number] if self._statistics else None


class StoredStatistic:
    """A stored tensor of floats, as values."""

    def __init__(self, objects: Objects, line: Line) -> None:
        self._stored = opened(objects, line)
        self.shape = line.shape

    def read(self, start: int, stop: int) -> Array:
        """The values from element ``start`` to before ``stop``."""
        return widen(self._stored.read(start, stop), self._stored.line.dtype)


def _statistic(objects: Objects, line: Line | None) -> StoredStatistic | None:
    if line is None or not is_averaged(line.dtype) or line.dtype == "c64":
        return None
    return StoredStatistic(objects, line)
