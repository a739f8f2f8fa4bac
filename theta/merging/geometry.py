"""The dtype and the rows of a merge whose sides differ in them.

Sides of different float dtypes are computed with in float32, or float64 if one of them is, and the result
is rounded once.  Sides with different numbers of rows have some in common: a vocabulary grew, or shrank.
The number of rows is merged three-way; where both sides appended rows, the larger number wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from theta.dtypes import DTYPES
from theta.store.format.manifest import Line


@dataclass(frozen=True)
class RowRange:
    """A range of rows, the numbers of the sides that have it, and whether the base does."""

    start: int
    stop: int
    members: tuple[int, ...]
    based: bool


@dataclass(frozen=True)
class Geometry:
    """The dtype and shape of a result.

    Attributes:
        dtype: the dtype of the result.
        shape: the shape of the result.
        computing: the dtype in which a method sees all sides.
        spans: consecutive ranges of rows; empty if all sides and the base have the same shape.
    """

    dtype: str
    shape: tuple[int, ...]
    computing: str
    spans: tuple[RowRange, ...] = ()


def joined(base: Line | None, sides: Sequence[Line]) -> Geometry | None:
    """Return the geometry of the merge of ``sides``, in the dtype of the first; None when they do not fit."""
    dtype = _computing([*filter(None, [base]), *sides]) or _computing(sides)
    if dtype is None or len({line.shape[1:] for line in sides}) != 1:
        return None
    known = base if base is not None and fits(base, sides) else None
    if len({line.shape for line in [*sides, *filter(None, [known])]}) == 1:
        return Geometry(sides[0].dtype, sides[0].shape, dtype)
    if not all(line.shape for line in sides):
        return None
    before, counts = known.shape[0] if known else None, [line.shape[0] for line in sides]
    rows = merged_rows(before, counts)
    if rows is None:
        return None
    shape = (rows, *sides[0].shape[1:])
    return Geometry(sides[0].dtype, shape, dtype, tuple(_spans(before or 0, counts, rows)))


def in_dtype(found: Geometry, dtype: str) -> Geometry:
    """Return ``found`` with a result of ``dtype``, a float dtype."""
    computing = found.computing if found.computing in (dtype, "f64") else "f32"
    return replace(found, dtype=dtype, computing="f64" if dtype == "f64" else computing)


def fits(base: Line, sides: Sequence[Line]) -> bool:
    """Return whether ``base`` has rows, or the shape, of ``sides``, in a dtype that goes with theirs."""
    if _computing([base, *sides]) is None or not sides:
        return False
    return base.shape == sides[0].shape or bool(base.shape and base.shape[1:] == sides[0].shape[1:])


def _computing(lines: Sequence[Line]) -> str | None:
    """Return the common dtype of ``lines``; for different floats f32, or f64 if one is; None for others."""
    dtypes = {line.dtype for line in lines}
    if len(dtypes) == 1:
        return dtypes.pop()
    if all(map(is_real, dtypes)):
        return "f64" if "f64" in dtypes else "f32"
    return None


def is_real(dtype: str) -> bool:
    """Return whether values of ``dtype`` are real numbers, which can be cast to another float dtype."""
    return DTYPES[dtype].kind == "float" and dtype != "f8_e8m0"


def merged_rows(before: int | None, counts: Sequence[int]) -> int | None:
    """Merge the number of rows three-way; None when one side appended rows and another removed some."""
    changed = {count for count in counts if count != before}
    if not changed:
        return before
    if before is None or min(changed) > before:
        return max(changed)
    return min(changed) if max(changed) < before else None


def _spans(before: int, counts: Sequence[int], rows: int) -> list[RowRange]:
    """Return ranges of rows within which neither the sides nor the base end."""
    cuts = sorted({0, rows} | {count for count in (before, *counts) if count < rows})
    return [
        RowRange(start, stop, tuple(n for n, count in enumerate(counts) if count >= stop), before >= stop)
        for start, stop in pairwise(cuts)
    ]
