"""Tallies of a difference while it is read: histogram, rows that moved most, singular values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from theta._numpy import np

_LOWEST: Final = -149
"""The exponent of the least difference that float32 can show; what is below counts there."""
_BINS: Final = 278
_ROWS: Final = 5
_SHOWN: Final = 16
_WIDEST: Final = 1024
_BLOCK: Final = 4096
_LARGEST: Final = 4 << 20
"""Elements up to which a matrix has singular values computed: 16 MB of float32."""


@dataclass(frozen=True)
class Details:
    """Tallies of the difference of two values of a tensor.

    Attributes:
        lowest: exponent of the first bin.
        counts: ``counts[k]`` elements have 2**(lowest+k) <= abs(difference) < 2**(lowest+k+1).
        zeros: elements whose difference is 0.
        infinite: elements whose difference is infinite.
        nans: elements whose difference is no number.
        rows: index and norm of the rows that moved most, the largest first; empty for vectors.
        singular: the largest singular values of the difference as a matrix of its rows; empty for vectors,
            and for matrices too large.
        effective_rank: exp of the entropy of all singular values over their sum (Roy and Vetterli 2007);
            0 where ``singular`` is empty.
    """

    lowest: int
    counts: tuple[int, ...]
    zeros: int
    infinite: int
    nans: int
    rows: tuple[tuple[int, float], ...]
    singular: tuple[float, ...]
    effective_rank: float


class Tally:
    """Running tallies over the pieces of a difference of ``shape``, which come in order."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._columns = math.prod(shape[1:]) if len(shape) > 1 else 0
        count = shape[0] if self._columns else 0
        self._squares = np.zeros(count)
        self._bins = np.zeros(_BINS, np.int64)
        self._zeros = self._infinite = self._nans = self._done = 0
        small = min(count, self._columns) <= _WIDEST and count * self._columns <= _LARGEST
        self._whole = np.zeros(count * self._columns, np.float32) if self._columns and small else None

    def add(self, gap: Any) -> None:
        """Add the next piece of the difference, float64."""
        sizes = np.abs(gap)
        finite = np.isfinite(sizes)
        nans = int(np.count_nonzero(np.isnan(sizes)))
        self._nans += nans
        self._infinite += len(gap) - int(np.count_nonzero(finite)) - nans
        sizes = np.where(finite, sizes, 0.0)
        moved = sizes[sizes > 0]
        self._zeros += int(np.count_nonzero(finite)) - len(moved)
        exponents = np.clip(np.frexp(moved)[1] - 1 - _LOWEST, 0, _BINS - 1)
        self._bins += np.bincount(exponents, minlength=_BINS)
        if self._columns:
            self._add_rows(sizes)
        if self._whole is not None:
            kept = np.where(finite, gap, 0.0)[: len(self._whole) - self._done]
            with np.errstate(over="ignore"):
                self._whole[self._done : self._done + len(kept)] = kept
        self._done += len(gap)

    def _add_rows(self, sizes: Any) -> None:
        first, last = self._done // self._columns, (self._done + len(sizes) - 1) // self._columns
        if last >= len(self._squares) or not len(sizes):
            return
        starts = np.arange(first, last + 1) * self._columns - self._done
        with np.errstate(over="ignore"):
            self._squares[first : last + 1] += np.add.reduceat(sizes**2, np.maximum(starts, 0))

    def details(self) -> Details:
        """Return the tallies of all pieces."""
        used = np.flatnonzero(self._bins)
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        counts = tuple(int(n) for n in self._bins[low:high])
        values = _singular_values(self._whole, self._columns)
        shown = tuple(float(value) for value in values[:_SHOWN])
        rank = _effective_rank(values)
        odd = (self._infinite, self._nans)
        return Details(low + _LOWEST, counts, self._zeros, *odd, self._largest(), shown, rank)

    def _largest(self) -> tuple[tuple[int, float], ...]:
        order = np.argsort(-self._squares, kind="stable")[:_ROWS]
        return tuple((int(row), float(np.sqrt(self._squares[row]))) for row in order if self._squares[row])


def _singular_values(whole: Any, columns: int) -> Any:
    """Return the singular values of a float32 matrix, the largest first, by the smaller Gram matrix.

    The sums are float64.  Values below the rounding of that matrix are 0: squares hide what is smaller than
    1e-8 of the largest.
    """
    if whole is None or not whole.size or not np.isfinite(whole).all():
        return np.zeros(0)
    matrix = whole.reshape(-1, columns)
    scale = float(np.abs(matrix).max())
    if not scale:
        return np.zeros(0)
    matrix = matrix.T if len(matrix) < columns else matrix
    gram = np.zeros((matrix.shape[1],) * 2)
    for at in range(0, len(matrix), _BLOCK):
        block = matrix[at : at + _BLOCK].astype(np.float64) / scale
        gram += block.T @ block
    squares = np.linalg.eigvalsh(gram)[::-1]
    least = squares[0] * len(squares) * np.finfo(np.float64).eps
    return np.sqrt(np.where(squares > least, squares, 0.0)) * scale


def _effective_rank(values: Any) -> float:
    total = float(values.sum())
    if not total:
        return 0.0
    parts = values[values > 0] / total
    return float(np.exp(-(parts * np.log(parts)).sum()))
