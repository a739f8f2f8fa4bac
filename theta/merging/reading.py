"""Stored tensors as arrays of words, in any range, decoded chunk by chunk."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from theta.errors import ThetaError
from theta.merging.sinks import Departing
from theta.merging.strategies import is_averaged
from theta.merging.strategies.method import Read, Statistic
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.read import layers
from theta.store.read.reassembly import Restorer, checked_chunk
from theta.store.write.layer_plan import has_structure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KEPT_WHOLE: Final = 80 << 20
"""Bytes of the largest tensor whose chunks are all kept for the passes that follow."""
SHARED: Final = 32 << 20
"""Bytes of the largest tensor that one thread works on alone."""
_KEPT: Final = 8


@dataclass(frozen=True)
class Place:
    """Where a file has the bytes of a tensor, if it is what it is thought to be."""

    source: Departing
    offset: int


class StoredTensor:
    """One version of a tensor; reads are checked by digest, and threads may share it.

    Args:
        objects: where it is stored.
        line: what it is.
        place: a file that may hold the same bytes, which are read there instead of decoded.
    """

    def __init__(self, objects: Objects, line: Line, place: Place | None = None) -> None:
        from theta.merging.strategies.numbers import word_type

        self.line = line
        self.dtype, self.shape = line.dtype, line.shape
        self._place = place
        self._kind = word_type(line.dtype)
        self._record = Restorer(objects).record(line)
        self._view = layers.top(objects, self._record) if self._record.chunks else None
        sizes = [chunk.length // self._kind.itemsize for chunk in self._record.chunks]
        self._starts = [0, *accumulate(sizes)]
        self._limit = len(sizes) if line.nbytes <= KEPT_WHOLE else _KEPT
        self._kept: OrderedDict[int, Array] = OrderedDict()
        self._locks = [threading.Lock() for _ in sizes]
        self._lock = threading.Lock()

    @property
    def digests(self) -> list[tuple[int, bytes]]:
        """Length and digest of each chunk."""
        return [(chunk.length, chunk.digest) for chunk in self._record.chunks]

    def is_like(self, line: Line) -> bool:
        """Whether dtype and shape are those of ``line``."""
        return (self.line.dtype, self.line.shape) == (line.dtype, line.shape)

    @property
    def has_structure(self) -> bool:
        """Whether it is stored as more than differences of words to what it rests on."""
        return has_structure(self._record)

    @property
    def is_at_hand(self) -> bool:
        """Whether all of it can be read without being decoded: it is kept, or in a file."""
        return self._place is not None or len(self._kept) == len(self._locks)

    @property
    def start_of_last_chunk(self) -> int:
        """The first word of the last chunk."""
        return self._starts[-2]

    def read(self, start: int, stop: int) -> Array:
        """The words from ``start`` to before ``stop``."""
        import numpy as np

        parts = []
        number = bisect_right(self._starts, start) - 1
        while start < stop:
            end = min(stop, self._starts[number + 1])
            first = self._starts[number]
            parts.append(self._chunk(number)[start - first : end - first])
            start, number = end, number + 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, self._kind)

    def sample(self, start: int, stop: int) -> Array:
        """The words in that range of one chunk, not proven by their digest: to choose by, not to keep."""
        number = bisect_right(self._starts, start) - 1
        with self._lock:
            words = self._kept.get(number)
        if words is None:
            assert self._view is not None
            words = self._view.chunk(number).view(self._kind)
        first = self._starts[number]
        return words[start - first : stop - first]

    def forget(self) -> None:
        """Let go of decoded chunks."""
        with self._lock:
            self._kept.clear()

    def leave(self) -> None:
        """Let go of all that is kept of it, here and by the system: it will not be read again."""
        self.forget()
        if self._place is not None:
            self._place.source.drop(self._place.offset, self.line.nbytes)

    def _chunk(self, number: int) -> Array:
        """A chunk, decoded once even if two threads want it."""
        import numpy as np

        with self._locks[number]:
            with self._lock:
                if number in self._kept:
                    self._kept.move_to_end(number)
                    return self._kept[number]
            words: Array = np.frombuffer(self._raw(number), self._kind)
            with self._lock:
                self._kept[number] = words
                while len(self._kept) > self._limit:
                    self._kept.popitem(last=False)
            return words

    def _raw(self, number: int) -> bytes | memoryview:
        chunk = self._record.chunks[number]
        if self._place is not None:
            start = self._place.offset + self._starts[number] * self._kind.itemsize
            with contextlib.suppress(ThetaError):  # it was shortened, or replaced, since
                found = self._place.source.read(start, chunk.length)
                if hashlib.sha256(found).digest() == chunk.digest:
                    return found
        assert self._view is not None
        return checked_chunk(self._view, self._record, number, self.line.name)


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
        self.sides = [StoredTensor(objects, *pair) for pair in zip(sides, found, strict=True)]
        self.base = StoredTensor(objects, base) if base is not None else None
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
        self._stored = StoredTensor(objects, line)
        self.shape = line.shape

    def read(self, start: int, stop: int) -> Array:
        """The values from element ``start`` to before ``stop``."""
        from theta.merging.strategies.numbers import widen

        return widen(self._stored.read(start, stop), self._stored.line.dtype)


def _statistic(objects: Objects, line: Line | None) -> StoredStatistic | None:
    if line is None or not is_averaged(line.dtype) or line.dtype == "c64":
        return None
    return StoredStatistic(objects, line)
