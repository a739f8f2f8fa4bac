"""Rows of zeros, which a write that was cut short or a part that was not merged leaves in a matrix."""

from __future__ import annotations

import math
from typing import Any, Final

from theta._numpy import np
from theta.dtypes import numpy_dtype
from theta.formats.values import Value
from theta.porcelain.check.findings import BrokenRule

_NAMED: Final = 5


class ZeroRows:
    """Finds the rows of a matrix of floats whose elements are all 0 or -0, chunk by chunk.

    A row is what one index of the first axis selects.  Only rows whose first element is zero are looked at.
    """

    def __init__(self, value: Value) -> None:
        self._dtype = numpy_dtype(value.dtype)
        self._length = math.prod(value.shape[1:])
        self._at = 0
        self._is_open = False
        self.rows: list[int] = []
        """The rows found, by number, in order."""

    def add(self, chunk: bytes) -> None:
        """Look at the next chunk, which may begin and end within a row."""
        array = np.frombuffer(chunk, self._dtype)
        begin = -self._at % self._length
        if self._is_open:
            self._look(array, begin - self._length)
        for start in (np.flatnonzero(array[begin :: self._length] == 0) * self._length + begin).tolist():
            self._look(array, start)
        self._at += array.size

    def _look(self, array: Any, start: int) -> None:
        """Note whether the row that begins at ``start``, which is below 0 in a chunk before, is zero."""
        stop = start + self._length
        is_zero = not array[max(start, 0) : stop].any()
        self._is_open = is_zero and stop > array.size
        if is_zero and stop <= array.size:
            self.rows.append((self._at + start) // self._length)


def emptied(path: str, name: str, rows: list[int], old: Value) -> list[BrokenRule]:
    """Return the finding that some of ``rows``, which are zero now, are not in ``old``; none if all are."""
    before = ZeroRows(old)
    for chunk in old.chunks():
        before.add(chunk)
    lost = sorted({*rows} - {*before.rows})
    if not lost:
        return []
    named = ", ".join(map(str, lost[:_NAMED])) + (", ..." if len(lost) > _NAMED else "")
    text = f"{len(lost)} rows are zero that were not in the version before: {named}"
    return [BrokenRule("zero", path, name, text)]
