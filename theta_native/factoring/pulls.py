"""Sums, by a factor, of what a product of thin factors is beyond the intervals of words.

The value that was rounded to a word lies within half a unit in the last place of it.  So the product, added
to the base, is to lie there.  A *pull* is by how much it is beyond the inner part of that interval.  Neither
the products nor the pulls of a whole matrix are ever in memory: those of four rows and a block of columns
are, while they are needed.

Numbers are float32, or float64 for words of 32 bits.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theta_native import in_any_order, unwritable
from theta_native.factoring.layouts import Floats
from theta_native.floats import FloatLayout

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint16 or uint32."""
Matrix = NDArray[Any]
"""A two-dimensional, C-contiguous array of float32, or of float64 for words of 32 bits."""

_AT_ONCE: Final = 4
"""The rows of a matrix, and the columns of factors, that the kernels have written out."""
_COLUMNS: Final = 4096
_EXPONENT = np.uint32(0x7F800000)
_NONE, _ONE, _INFINITE = np.float32(0), np.float32(1), np.float32(np.inf)


class Intervals(NamedTuple):
    """The inner parts of intervals, and the weights of what is beyond them.

    Attributes:
        inside: the inner part of an interval, 0 for its middle.
        noise: the least that half of an interval is taken for.
        reference: the half of an interval up to which the weight is 1; then it falls as the interval grows.
    """

    inside: np.float32
    noise: np.float32
    reference: np.float32


Range = tuple[int, int]
Aims = tuple[tuple[Words, Words], tuple[Any, ...], tuple[np.float32, ...]]
"""The words of a matrix and of its base, how they are read (:class:`Floats`), and the intervals."""


@in_any_order
def _multiply(u: Matrix, v: Matrix, row: int, columns: Range, out: Matrix) -> None:
    # Four rows of a block of u @ v: sixteen products of vectors for eight loads and four stores.
    first, last = columns
    n = last - first
    p0, p1, p2, p3 = out[0, :n], out[1, :n], out[2, :n], out[3, :n]
    for j in range(n):
        p0[j] = p1[j] = p2[j] = p3[j] = 0
    for k in range(0, v.shape[0], 4):
        v0, v1, v2, v3 = v[k, first:last], v[k + 1, first:last], v[k + 2, first:last], v[k + 3, first:last]
        a0, a1, a2, a3 = u[row, k], u[row, k + 1], u[row, k + 2], u[row, k + 3]
        b0, b1, b2, b3 = u[row + 1, k], u[row + 1, k + 1], u[row + 1, k + 2], u[row + 1, k + 3]
        c0, c1, c2, c3 = u[row + 2, k], u[row + 2, k + 1], u[row + 2, k + 2], u[row + 2, k + 3]
        d0, d1, d2, d3 = u[row + 3, k], u[row + 3, k + 1], u[row + 3, k + 2], u[row + 3, k + 3]
        for j in range(n):
            x0, x1, x2, x3 = v0[j], v1[j], v2[j], v3[j]
            y0 = p0[j] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
            y1 = p1[j] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
            y2 = p2[j] + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
            y3 = p3[j] + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
            p0[j], p1[j], p2[j], p3[j] = y0, y1, y2, y3


@in_any_order
def _pull(
    new: Words, base: Words, floats: tuple[Any, ...], intervals: tuple[Any, ...], products: Any
) -> None:
    # Put the pulls of some words of a row in the place of the products; of what is not finite there is none.
    low, top, exponent, shift, lift, scale, smallest, unit = floats
    inside, noise, reference = intervals
    for j in range(products.size):
        x, y = np.uint32(new[j]), np.uint32(base[j])
        bits, under = np.uint32(np.uint32(x & low) * shift), np.uint32(np.uint32(y & low) * shift)
        half = max(max(np.uint32(bits & _EXPONENT).view(np.float32) * scale, smallest) * unit, noise)
        value = np.uint32(bits | np.uint32(np.uint32(x & top) * lift)).view(np.float32) * scale
        below = np.uint32(under | np.uint32(np.uint32(y & top) * lift)).view(np.float32) * scale
        beyond = np.float32(products[j] - (products.dtype.type(value) - products.dtype.type(below)))
        room = half * inside
        within = max(min(beyond, room), -room)
        weight = np.divide(reference, half)
        pull = (beyond - within) * (weight if weight < _ONE else _ONE)
        is_finite = (np.uint32(x & exponent) != exponent) & (np.uint32(y & exponent) != exponent)
        products[j] = pull if is_finite & (abs(pull) < _INFINITE) else _NONE


@in_any_order
def _pulls(given: Aims, u: Matrix, v: Matrix, row: int, columns: Range, out: Matrix) -> None:
    # Put the pulls of four rows of a block of columns into `out`, and zeros for rows that there are not.
    words, floats, intervals = given
    n = columns[1] - columns[0]
    _multiply(u, v, row, columns, out)
    for r in range(4):
        start = (row + r) * v.shape[1] + columns[0]
        if start < words[0].size:
            _pull(words[0][start : start + n], words[1][start : start + n], floats, intervals, out[r, :n])
        else:
            out[r, :n] = 0


@in_any_order
def _energy(pulls: Matrix, n: int) -> float:
    total = pulls.dtype.type(0)
    for r in range(4):
        row = pulls[r, :n]
        for j in range(n):
            total += row[j] * row[j]
    return float(total)


@in_any_order
def _add_to_columns(pulls: Matrix, by: Matrix, row: int, columns: Range, out: Matrix) -> None:
    # Add what four rows of `by` have of the pulls to some columns.
    first, last = columns
    n = last - first
    x, y, z, w = pulls[0, :n], pulls[1, :n], pulls[2, :n], pulls[3, :n]
    for k in range(0, out.shape[0], 4):
        o0, o1 = out[k, first:last], out[k + 1, first:last]
        o2, o3 = out[k + 2, first:last], out[k + 3, first:last]
        a0, a1, a2, a3 = by[row, k], by[row + 1, k], by[row + 2, k], by[row + 3, k]
        b0, b1, b2, b3 = by[row, k + 1], by[row + 1, k + 1], by[row + 2, k + 1], by[row + 3, k + 1]
        c0, c1, c2, c3 = by[row, k + 2], by[row + 1, k + 2], by[row + 2, k + 2], by[row + 3, k + 2]
        d0, d1, d2, d3 = by[row, k + 3], by[row + 1, k + 3], by[row + 2, k + 3], by[row + 3, k + 3]
        for j in range(n):
            x0, x1, x2, x3 = x[j], y[j], z[j], w[j]
            o0[j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
            o1[j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
            o2[j] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
            o3[j] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@in_any_order
def _add_to_rows(pulls: Matrix, by: Matrix, row: int, columns: Range, out: Matrix) -> None:
    # Add what some columns of `by` have of the pulls to four rows.
    first, last = columns
    n = last - first
    x, y, z, w = pulls[0, :n], pulls[1, :n], pulls[2, :n], pulls[3, :n]
    none = pulls.dtype.type(0)
    for k in range(0, out.shape[1], 4):
        v0, v1, v2, v3 = (
            by[k, first:last],
            by[k + 1, first:last],
            by[k + 2, first:last],
            by[k + 3, first:last],
        )
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = none
        c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = none
        for j in range(n):
            x0, x1, x2, x3 = x[j], y[j], z[j], w[j]
            y0, y1, y2, y3 = v0[j], v1[j], v2[j], v3[j]
            a0 += x0 * y0
            a1 += x0 * y1
            a2 += x0 * y2
            a3 += x0 * y3
            b0 += x1 * y0
            b1 += x1 * y1
            b2 += x1 * y2
            b3 += x1 * y3
            c0 += x2 * y0
            c1 += x2 * y1
            c2 += x2 * y2
            c3 += x2 * y3
            d0 += x3 * y0
            d1 += x3 * y1
            d2 += x3 * y2
            d3 += x3 * y3
        out[row, k] += a0
        out[row, k + 1] += a1
        out[row, k + 2] += a2
        out[row, k + 3] += a3
        out[row + 1, k] += b0
        out[row + 1, k + 1] += b1
        out[row + 1, k + 2] += b2
        out[row + 1, k + 3] += b3
        out[row + 2, k] += c0
        out[row + 2, k + 1] += c1
        out[row + 2, k + 2] += c2
        out[row + 2, k + 3] += c3
        out[row + 3, k] += d0
        out[row + 3, k + 1] += d1
        out[row + 3, k + 2] += d2
        out[row + 3, k + 3] += d3


@in_any_order
def _sum_up(
    given: Aims, u: Matrix, v: Matrix, by: Matrix, room: Matrix, out: Matrix, is_of_rows: bool
) -> float:
    # Add pulls @ by.T, or by.T @ pulls, to `out`; return the energy of the pulls.  Both in one kernel, since
    # what they have in common takes longest to compile.
    energy = 0.0
    for first in range(0, v.shape[1], room.shape[1]):
        columns = first, min(first + room.shape[1], v.shape[1])
        for row in range(0, u.shape[0], 4):
            _pulls(given, u, v, row, columns, room)
            if is_of_rows:
                _add_to_rows(room, by, row, columns, out)
            else:
                energy += _energy(room, columns[1] - first)
                _add_to_columns(room, by, row, columns, out)
    return energy


class Pulls:
    """The pulls of a matrix: the words ``new``, row by row, and as many of its ``base``."""

    def __init__(self, new: Words, base: Words, layout: FloatLayout, kind: type[Any]) -> None:
        self._words, self._kind = (unwritable(new), unwritable(base)), kind
        self._floats = tuple(Floats.of(layout))

    def to_columns(self, intervals: Intervals, u: Matrix, v: Matrix, by: Matrix) -> tuple[Matrix, float]:
        """Return ``by.T @ pulls`` of the product ``u @ v``, and the energy of the pulls.

        ``u`` and ``by`` are (m, r) and (m, s), ``v`` is (r, n), and what is returned is (s, n).
        """
        out = np.zeros((_full(by.shape[1]), v.shape[1]), self._kind)
        given, room = (self._words, self._floats, tuple(intervals)), self._room(v.shape[1])
        energy = _sum_up(given, _filled(u), _filled(v, columns=False), _filled(by), room, out, False)
        return out[: by.shape[1]], energy

    def to_rows(self, intervals: Intervals, u: Matrix, v: Matrix, by: Matrix) -> Matrix:
        """Return ``pulls @ by.T`` of the product ``u @ v``.

        ``u`` is (m, r), ``v`` and ``by`` are (r, n) and (s, n), and what is returned is (m, s).
        """
        count = by.shape[0]
        out = np.zeros((_full(u.shape[0]), _full(count)), self._kind)
        given, room = (self._words, self._floats, tuple(intervals)), self._room(v.shape[1])
        by = _filled(by, columns=False)
        _sum_up(given, _filled(u), _filled(v, columns=False), by, room, out, True)
        return out[: u.shape[0], :count]

    def _room(self, columns: int) -> Matrix:
        return np.empty((_AT_ONCE, min(columns, _COLUMNS)), self._kind)


def _full(count: int) -> int:
    return -(-count // _AT_ONCE) * _AT_ONCE


def _filled(factor: Matrix, *, columns: bool = True) -> Matrix:
    """Return a factor with zeros in more rows, and columns unless these stay, for those taken at once."""
    height, width = factor.shape
    more = _full(height) - height, _full(width) - width if columns else 0
    return np.ascontiguousarray(np.pad(factor, ((0, more[0]), (0, more[1]))) if any(more) else factor)
