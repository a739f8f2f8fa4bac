"""Computing a tensor whose versions differ in dtype or in the number of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from theta._numpy import np
from theta.errors import ThetaError
from theta.merging.geometry import Geometry, RowRange
from theta.merging.strategies import one_tensor, registry
from theta.merging.strategies.method import BLOCK, Job, Method, Read, Statistic
from theta.merging.strategies.numbers import finite, narrow, widen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

WITHOUT_BASE: Final = "average"
"""The method for rows that several sides have and the base has not, if the method asked for needs a base."""


class RowSource(Protocol):
    """A version of a tensor."""

    @property
    def dtype(self) -> str:
        """The dtype of its words."""
        ...

    def read(self, start: int, stop: int) -> Array:
        """Return the words of the elements ``start:stop``."""
        ...


class UnevenInputs(Protocol):
    """All versions of a tensor."""

    @property
    def sides(self) -> Sequence[RowSource]:
        """Each side."""
        ...

    @property
    def base(self) -> RowSource | None:
        """The base, if it is used."""
        ...

    def statistic(self, number: int) -> Statistic | None:
        """Return the statistic of side ``number``, or None."""
        ...


def result(
    method: Method,
    job: Job,
    inputs: UnevenInputs,
    geometry: Geometry,
    digests: Sequence[str],
    *,
    allow_nan: bool = False,
) -> Iterator[Array]:
    """Yield the words of the result, in the dtype of ``geometry``, one range of rows after the other.

    ``job`` has all sides as inputs, with these ``digests``.  Rows of one side are copied.  Raises
    :class:`ThetaError` where a finite value is too large for the dtype of the result, unless ``allow_nan``.
    """
    for span in geometry.spans or (_all_rows(job, inputs),):
        there = _Rows(inputs, geometry.computing, _width(job), span, by_element=method.statistics_by_element)
        part = replace(
            job,
            dtype=geometry.computing,
            shape=(span.stop - span.start, *job.shape[1:]) if geometry.spans else job.shape,
            inputs=there,
            has_base=there.base is not None,
            first_row=span.start,
        ).only(span.members)
        part = replace(part, inputs=there)
        if part.count > 1:
            part = one_tensor.narrowed(method, part, [digests[number] for number in span.members])
        alone = len(span.members) == 1 and bool(geometry.spans)
        if job.keeps and (alone or not part.has_base):
            pieces = _zeros(part)
        else:
            pieces = _copied(part) if alone else _span(method, part, allow_nan=allow_nan)
        for words in pieces:
            yield _rounded(words, job.name, geometry, allow_nan=allow_nan)


def _all_rows(job: Job, inputs: UnevenInputs) -> RowRange:
    rows = job.shape[0] if job.shape else 1
    return RowRange(0, rows, tuple(range(job.count)), inputs.base is not None)


def _width(job: Job) -> int:
    """Return the number of elements in a row."""
    return math.prod(job.shape[1:]) * (2 if job.dtype == "c64" else 1)


def _zeros(job: Job) -> Iterator[Array]:
    """Yield the words of a statistic of rows that were only copied."""
    return (np.zeros(block.stop - block.start, f"<u{job.wide.itemsize}") for block in job.blocks(BLOCK))


def _copied(job: Job) -> Iterator[Array]:
    """Yield the words of rows that one side has."""
    return (block.words.inputs[0] for block in job.blocks(BLOCK))


def _span(method: Method, job: Job, *, allow_nan: bool) -> Iterator[Array]:
    """Yield the words of a range of rows in the dtype of the computation."""
    if (method.needs_base or job.values.get("use_base")) and not job.has_base:
        weights = job.values.get("weight", [1.0] * job.count)
        job = replace(job, values={"weight": weights, "normalize": True, "alpha": None})
        method = registry.method(WITHOUT_BASE)
    yield from one_tensor.result(method, job, allow_nan=allow_nan)


def _rounded(words: Array, name: str, geometry: Geometry, *, allow_nan: bool) -> Array:
    if geometry.computing == geometry.dtype:
        return words
    found = narrow(widen(words, geometry.computing), geometry.dtype)
    if not allow_nan and (finite(words, geometry.computing) & ~finite(found, geometry.dtype)).any():
        raise ThetaError(
            f"{name}: a value is too large for {geometry.dtype}",
            hint="choose another dtype of the result: --dtype f32",
        )
    return found


@dataclass(frozen=True)
class _Rows:
    """Some rows of the sides that have them, as words of one dtype; a ``strategies.method.Inputs``."""

    inputs: UnevenInputs
    dtype: str
    width: int
    span: RowRange
    by_element: bool

    @property
    def base(self) -> RowSource | None:
        """The base, if it has these rows and is wanted."""
        return self.inputs.base if self.span.based else None

    def read(self, start: int, stop: int) -> Read:
        """Return the elements ``start:stop`` of these rows."""
        sides = (self.inputs.sides[number] for number in self.span.members)
        base = self.base
        return Read(
            tuple(self._words(side, start, stop) for side in sides),
            None if base is None else self._words(base, start, stop),
        )

    def statistic(self, number: int) -> Statistic | None:
        """Return the statistic of input ``number``; of these rows only, if it has one for each element."""
        found = self.inputs.statistic(self.span.members[number])
        if found is None or not self.by_element:
            return found
        is_of_rows = math.prod(found.shape[1:]) == self.width and found.shape[:1] >= (self.span.stop,)
        return _SomeRows(found, self.width, self.span) if is_of_rows else None

    def _words(self, stored: RowSource, start: int, stop: int) -> Array:
        first = self.width * self.span.start
        found = stored.read(first + start, first + stop)
        if stored.dtype == self.dtype:
            return found
        values = widen(found, stored.dtype)
        kind = np.dtype(np.float64 if self.dtype == "f64" else np.float32)
        words: Array = np.ascontiguousarray(values, kind).view(f"<u{kind.itemsize}")
        return words


@dataclass(frozen=True)
class _SomeRows:
    """Some rows of a statistic with a value for each element; a ``strategies.method.Statistic``."""

    whole: Statistic
    width: int
    span: RowRange

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of these rows."""
        return (self.span.stop - self.span.start, *self.whole.shape[1:])

    def read(self, start: int, stop: int) -> Array:
        """Return the values of the elements ``start:stop`` of these rows."""
        first = self.width * self.span.start
        return self.whole.read(first + start, first + stop)
