"""The correctly rounded sum of a matrix and a product of thin factors, in every element.

The sum in float64 with a bound of its error tells nearly every rounded word; the few words that it does not
tell are computed with whole numbers.  The bound is that of an inner product of r + 1 terms (N. Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1), whichever order BLAS adds in::

    |computed - exact| <= (r + 4) * 2**-52 * (|w| + |u_i| * |v_j|)      with 2-norms of the factors' rows

A word is undecided if both ends of that interval do not round to it.  Its exact value is rounded to odd in
float64, and that to the dtype: with 2 bits more than the dtype has, both roundings are one (S. Boldo and
G. Melquiond, When double rounding is odd, 2005).  A sum of float64 itself is the one that BLAS computes.

Factors of few bits make many ties.  Their products are exact in float64, and the sum is exact as two numbers
unless the errors of the first sum have errors of their own (T. Ogita, S. Rump and S. Oishi, Accurate sum and
dot product, 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from theta._blas import one_thread
from theta._numpy import np
from theta.codecs import arith
from theta.codecs.base import Target, TensorWords

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Words = NDArray[Any]

_TILE: Final = 1 << 16
_NEAR: Final = 14
"""The class of boundary_classes within 2**-8 units of the last place from where the rounding changes."""
_DOUBLE: Final = 53


@dataclass(frozen=True)
class Product:
    """``u @ diag(scales) @ v.T``: factors (m, r) and (n, r) as they came, and a scale for each column."""

    u: Matrix
    v: Matrix
    scales: Matrix

    @cached_property
    def scaled(self) -> Matrix:
        """``u`` with its columns scaled, each number rounded."""
        return self.u * self.scales

    @cached_property
    def lengths(self) -> tuple[Matrix, Matrix]:
        """The 2-norms of the rows of both factors."""
        return np.linalg.norm(self.scaled, axis=1), np.linalg.norm(self.v, axis=1)

    @cached_property
    def is_short(self) -> bool:
        """Whether the product of any two numbers of ``scaled`` and ``v`` is exact in float64."""
        short = _bits(self.u) + _bits(self.scales) <= _DOUBLE
        return short and _bits(self.scaled) + _bits(self.v) <= _DOUBLE

    def at(self, rows: NDArray[Any], columns: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """Return the exact elements as whole numbers, in units of ``2**-unit``."""
        u, of_u = _whole(self.u[rows])
        v, of_v = _whole(self.v[columns])
        scales, of_scales = _whole(self.scales)
        return (u * scales * v).sum(axis=1), of_u + of_v + of_scales


def added(base: TensorWords, product: Product) -> Words:
    """Return the words of ``base`` plus ``product``, a matrix as the 2-d view of ``base``, rounded once."""
    columns = Target(base.dtype, base.shape).row_words
    step = max(_TILE // max(columns, 1), 1)
    parts = [_rows(base, product, first, step, columns) for first in range(0, product.u.shape[0], step)]
    return np.concatenate(parts) if parts else base.words


def _rows(base: TensorWords, product: Product, first: int, step: int, columns: int) -> Words:
    """Return the words of ``step`` rows from row ``first``."""
    u, limit = product.scaled[first : first + step], arith.mantissa_bits(base.dtype)
    below = arith.to_values(base.read(first * columns, (first + len(u)) * columns), base.dtype)
    with one_thread, np.errstate(all="ignore"):
        values = (u @ product.v.T).reshape(-1)
        values += below
        words = arith.to_words(values, base.dtype)
        most = product.lengths[0][first : first + step].max() * product.lengths[1].max(initial=0.0)
        most = _share(product) * (most + np.abs(below).max(initial=0.0, where=np.isfinite(below)))
        near = arith.boundary_classes(values, words, base.dtype) >= _NEAR
        near |= np.abs(values) <= math.ldexp(most, limit + 10)
        where = np.flatnonzero(near & np.isfinite(values)) if base.dtype != "f64" else np.empty(0, np.int64)
        where = where[_undecided(values[where], below[where], product, where + first * columns, base.dtype)]
    if where.size:
        exact = _rounded_to_odd(below[where], product, where + first * columns)
        words[where] = arith.to_words(exact, base.dtype)
    return words


def _share(product: Product) -> float:
    """Return the bound of the relative error."""
    return math.ldexp(product.u.shape[1] + 4, -52)


def _undecided(
    values: Matrix, below: Matrix, product: Product, where: NDArray[Any], dtype: str
) -> NDArray[np.bool_]:
    """Return which of the values at ``where`` may round to another word than they do."""
    rows, columns = np.divmod(where, product.v.shape[0])
    error = product.lengths[0][rows] * product.lengths[1][columns]
    error = _share(product) * (error + np.abs(below))
    low, high = (arith.to_words(values + way * error, dtype) for way in (-1, 1))
    found: NDArray[np.bool_] = (low != high) & (error > 0)
    return found


def _rounded_to_odd(below: Matrix, product: Product, where: NDArray[Any]) -> Matrix:
    """Return the exact sums at ``where``, rounded to an odd float64 if they are not one."""
    rows, columns = np.divmod(where, product.v.shape[0])
    if not product.is_short:
        return _by_whole_numbers(below, product, rows, columns)
    found, exact = _by_two_numbers(below, product, rows, columns)
    if not exact.all():
        rest = ~exact
        found[rest] = _by_whole_numbers(below[rest], product, rows[rest], columns[rest])
    return found


def _by_two_numbers(
    below: Matrix, product: Product, rows: NDArray[Any], columns: NDArray[Any]
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Return the sums of exact products, rounded to odd, and which of them are right."""
    high, low = below, np.zeros_like(below)
    exact = np.ones(below.size, np.bool_)
    for u, v in zip(product.scaled.T, product.v.T, strict=True):
        high, error = _two_sum(high, u[rows] * v[columns])
        low, lost = _two_sum(low, error)
        exact &= lost == 0
    high, low = _two_sum(high, low)
    even = (high.view(np.uint64) & np.uint64(1)) == 0
    return np.where(even & (low != 0), np.nextafter(high, np.copysign(np.inf, low)), high), exact


def _two_sum(one: Matrix, other: Matrix) -> tuple[Matrix, Matrix]:
    """Return the sum and its error, exactly (D. Knuth, The Art of Computer Programming, 4.2.2)."""
    total = one + other
    part = total - one
    return total, (one - (total - part)) + (other - part)


def _by_whole_numbers(below: Matrix, product: Product, rows: NDArray[Any], columns: NDArray[Any]) -> Matrix:
    sums, unit = product.at(rows, columns)
    values, of_values = _whole(below)
    shared = max(unit, of_values)
    sums = sums * (1 << (shared - unit)) + values * (1 << (shared - of_values))
    return np.array([_odd(int(total), shared) for total in sums])


def _odd(total: int, unit: int) -> float:
    """Return ``total / 2**unit`` rounded to odd."""
    near = total / (1 << unit)
    top, bottom = near.as_integer_ratio()
    left = total * bottom - (top << unit)
    if left == 0 or math.frexp(near)[0] * 2.0**_DOUBLE % 2:
        return near
    return math.nextafter(near, math.copysign(math.inf, left))


def _whole(values: Matrix) -> tuple[NDArray[Any], int]:
    """Return ``values`` as whole numbers of any length, in units of ``2**-unit``."""
    parts, powers = np.frexp(values)
    least = int(powers.min(initial=0, where=values != 0))
    whole = np.ldexp(parts, _DOUBLE).astype(np.int64).astype(object)
    shifts = np.where(values != 0, powers - least, 0).astype(object)
    return whole << shifts, _DOUBLE - least


def _bits(values: Matrix) -> int:
    """Return the significant bits of the number that has the most."""
    whole = np.ldexp(np.frexp(values)[0], _DOUBLE).astype(np.int64)
    lowest = np.bitwise_and(whole, -whole)[whole != 0]
    return _DOUBLE + 1 - int(lowest.min(initial=1 << _DOUBLE)).bit_length()
