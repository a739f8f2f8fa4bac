"""Finding the thin factors whose product was added to a matrix.

All sums are in a fixed order (``theta_native.lowrank``), so that the factors found do not
depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from theta.codecs import arith
from theta.codecs.base import Range, Target, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.codecs.lowrank import Factors

    Matrix = NDArray[np.float64]

_SMALLEST_SIDE: Final = 32
_SAMPLE_SIDE: Final = 320
_LARGEST_RANK: Final = 136
_WEIGHTED_COST: Final = 5e10
_BITS: Final = {"f16": (13, 16), "bf16": (12, 14), "f32": (22, 28)}
_SAMPLE_WORDS: Final = 1 << 17


def _ulps(new: Tensor) -> Matrix:
    """The unit in the last place of every word, as a matrix."""
    values = np.abs(arith.to_values(new.words, new.dtype))
    smallest = 2.0 ** ({"f16": -14, "bf16": -126, "f32": -126}[new.dtype])
    values = np.where(np.isfinite(values), np.maximum(values, smallest), smallest)
    ulps: Matrix = np.ldexp(1.0, np.frexp(values)[1] - 1 - arith.mantissa_bits(new.dtype))
    return ulps


def _difference(new: Tensor, base: Tensor) -> Matrix:
    with np.errstate(all="ignore"):
        d = arith.to_values(new.words, new.dtype) - arith.to_values(base.words, base.dtype)
    return np.where(np.isfinite(d), d, 0.0)


def _part(tensor: Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Tensor:
    """A submatrix."""
    matrix = tensor.words.reshape(-1, Target(tensor.dtype, tensor.shape).row_words)
    words = np.ascontiguousarray(matrix[np.ix_(rows, columns)]).reshape(-1)
    return Tensor(tensor.dtype, (rows.size, columns.size), words)


def _sample_rank(new: Tensor, base: Tensor) -> int:
    """About the rank of the difference as a spread sample shows it; 0 if it is not low."""
    target = Target(new.dtype, new.shape)
    sides = [
        np.unique(np.linspace(0, n - 1, _SAMPLE_SIDE).astype(np.int64))
        for n in (target.rows, target.row_words)
    ]
    new, base = _part(new, *sides), _part(base, *sides)
    d, noise = _difference(new, base).reshape(new.shape), float((_ulps(new) ** 2).sum()) / 12
    energies = np.linalg.svd(d, compute_uv=False) ** 2
    if energies.sum() < 2 * noise:
        return 0
    # What is left after k directions: rounding leaves (1 - k/m)(1 - k/n) of its energy.
    left = energies.sum() - np.cumsum(energies)
    k = np.arange(1, energies.size + 1)
    expected = noise * (1 - k / new.shape[0]) * (1 - k / new.shape[1]) + 1e-12 * energies.sum()
    enough = np.flatnonzero(left <= 1.5 * expected)
    rank = int(k[enough[0]]) if enough.size else energies.size
    return rank if rank <= min(energies.size // 3, _LARGEST_RANK) else 0


def _signs(rows: int, columns: int) -> Matrix:
    """A fixed matrix of pseudo-random signs."""
    mixed = np.arange(1, rows * columns + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.where(mixed >> np.uint64(63), 1.0, -1.0).reshape(rows, columns)


def _principal(d: Matrix, sample_rank: int, noise: float) -> tuple[Matrix, Matrix]:
    """Real factors from a randomised sketch (Halko, Martinsson, Tropp 2011, §4), balanced."""
    from theta_native import lowrank as kernels

    width = min(sample_rank + 8, *d.shape)
    basis = kernels.orthonormal(kernels.multiply(d, _signs(d.shape[1], width)))
    basis = kernels.orthonormal(kernels.multiply_transposed(d, basis))
    u = kernels.multiply(d, basis)
    values, vectors = kernels.eigen(kernels.multiply_transposed(u, u))
    # The largest singular value of noise alone (Marchenko and Pastur), with some room.
    floor = 1.5 * noise * (d.shape[0] ** 0.5 + d.shape[1] ** 0.5) ** 2
    rank = max(int(np.count_nonzero(values > floor)), 1)
    vectors = np.ascontiguousarray(vectors[:, :rank])
    balance = np.maximum(values[:rank], 1e-300) ** 0.25
    return kernels.multiply(u, vectors) / balance, kernels.multiply(basis, vectors) * balance


def _refined(d: Matrix, w: Matrix, u: Matrix, v: Matrix) -> tuple[Matrix, Matrix]:
    """A round of weighted least squares for both factors, where that is affordable."""
    from theta_native import lowrank as kernels

    if d.size * u.shape[1] ** 2 > _WEIGHTED_COST:
        return u, v
    v = kernels.weighted_rows(np.ascontiguousarray(d.T), np.ascontiguousarray(w.T), u)
    return kernels.weighted_rows(d, w, v), v


def _quantised(d: Matrix, w: Matrix, u: Matrix, v: Matrix, bits: int) -> Factors:
    """Integer factors of ``bits`` bits; u is fitted to the v that was rounded."""
    from theta.codecs.lowrank import Factors
    from theta_native import lowrank as kernels

    def unit(factor: Matrix) -> int:
        return int(np.frexp(np.abs(factor).max() or 1.0)[1]) - (bits - 1)

    scale_v = unit(v)
    whole_v = np.rint(np.ldexp(v, -scale_v))
    if d.size * u.shape[1] ** 2 <= _WEIGHTED_COST:
        u = kernels.weighted_rows(d, w, np.ldexp(whole_v, scale_v))
    scale_u = unit(u)
    whole_u = np.rint(np.ldexp(u, -scale_u))
    return Factors(whole_u.astype(np.int64), whole_v.astype(np.int64), scale_u + scale_v)


def _cost(new: Tensor, base: Tensor, ranges: Sequence[Range], factors: Factors) -> float:
    """About the stored bytes with these factors, from a part of the chunks."""
    from theta.codecs import lowrank

    row = Target(new.dtype, new.shape).row_words
    start, stop = ranges[len(ranges) // 2]
    stop = min(stop, start + max(_SAMPLE_WORDS // row, 1) * row)
    chunk = lowrank.encode_factors(new, base, [(start, stop)], factors)
    total = sum(b - a for a, b in ranges)
    return len(chunk.shared or b"") + len(chunk.chunks[0]) * total / (stop - start)


def find(new: Tensor, base: Tensor, ranges: Sequence[Range]) -> Factors | None:
    """The factors that make ``new`` from ``base`` most cheaply; None if the rank is not low."""
    target = Target(new.dtype, new.shape)
    if min(target.rows, target.row_words) < _SMALLEST_SIDE:
        return None
    sample_rank = _sample_rank(new, base)
    if not sample_rank:
        return None
    d = _difference(new, base).reshape(target.rows, target.row_words)
    ulps = _ulps(new).reshape(d.shape)
    # The product itself was rounded too, to f32: half a unit of its typical size.
    noise = ulps**2 / 12 + float(np.mean(d**2)) * 2.0**-48
    u, v = _principal(d, sample_rank, float(noise.mean()))
    w = 1.0 / noise
    w /= w.mean()
    u, v = _refined(d, w, u, v)
    choices = [_quantised(d, w, u, v, bits) for bits in _BITS[new.dtype]]
    exact = [factors for factors in choices if factors.is_exact() and abs(factors.scale) <= 400]
    return min(exact, key=lambda factors: _cost(new, base, ranges, factors), default=None)
