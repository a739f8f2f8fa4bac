"""Thin factors whose product is added to a matrix, and finding those that were.

All sums are in a fixed order (``theta_native.least_squares``), so that the factors found do not
depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from theta._kernels import least_squares
from theta._numpy import np
from theta.codecs import arith
from theta.codecs.base import Target, TensorWords

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Factor = NDArray[np.int64]

_SMALLEST_SIDE: Final = 32
_SAMPLE_SIDE: Final = 192
_LARGEST_RANK: Final = 136
_LARGEST_PART: Final = 48
_WEIGHTED_COST: Final = 5e10
_BITS: Final = {"f16": (13, 15, 17), "bf16": (13, 14), "f32": (22, 28)}
_PART_DTYPES: Final = ("f16", "bf16")
_WHOLE_BITS: Final = 12.0
_PART_BITS: Final = 4.0
_ROUNDINGS: Final = 5.5
_ONE_ROUNDING: Final = 1.5
"""The energy, in units of that of one rounding, that a whole update may leave, and surely leaves.

More than one is left where the base was rounded too, or lies several merges back.
"""
_LEAST_GAIN: Final = 0.08
_PART_CHOICES: Final = (4, 5)
_LARGEST_SCALE: Final = 400
_SHARPENING_COST: Final = 4e9
_MOST_ROUNDS: Final = 8
_OVERSHOOT: Final = 1.9
_SPLIT_BITS: Final = 14
_EXACT: Final = 1 << 53


@dataclass(frozen=True)
class Factors:
    """Integer factors ``u`` (m, r) and ``v`` (n, r); their product is scaled by ``2**scale``."""

    u: Factor
    v: Factor
    scale: int

    def is_exact(self) -> bool:
        """Whether the product can be computed as the format demands."""
        rank, most_u, most_v = int(self.u.shape[1]), _largest(self.u), _largest(self.v)
        if rank * most_u * most_v < _EXACT:
            return True
        high = (most_u >> _SPLIT_BITS) + 1
        return bool(rank * max(high, 1 << _SPLIT_BITS) * most_v < _EXACT)

    def product(self, rows: slice, columns: slice) -> Matrix:
        """A part of ``u @ v.T * 2**scale``, the same on every machine."""
        u, v = self.u[rows], self.v[columns].astype(np.float64).T
        if self.u.shape[1] * _largest(self.u) * _largest(self.v) < _EXACT:
            total = u.astype(np.float64) @ v
        else:
            high = u >> _SPLIT_BITS
            low = u - (high << _SPLIT_BITS)
            total = (high.astype(np.float64) @ v) * float(1 << _SPLIT_BITS) + low.astype(np.float64) @ v
        return total * 2.0**self.scale


def _largest(factor: Factor) -> int:
    return max(int(factor.max(initial=0)), -int(factor.min(initial=0)))


def _ulps(new: TensorWords) -> Matrix:
    """The unit in the last place of every word, as a matrix."""
    values = np.abs(arith.to_values(new.words, new.dtype))
    smallest = 2.0 ** ({"f16": -14, "bf16": -126, "f32": -126}[new.dtype])
    values = np.where(np.isfinite(values), np.maximum(values, smallest), smallest)
    ulps: Matrix = np.ldexp(1.0, np.frexp(values)[1] - 1 - arith.mantissa_bits(new.dtype))
    return ulps


def _difference(new: TensorWords, base: TensorWords) -> Matrix:
    with np.errstate(all="ignore"):
        d = arith.to_values(new.words, new.dtype) - arith.to_values(base.words, base.dtype)
    return np.where(np.isfinite(d), d, 0.0)


def _part(tensor: TensorWords, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> TensorWords:
    """A submatrix."""
    matrix = tensor.words.reshape(-1, Target(tensor.dtype, tensor.shape).row_words)
    words = np.ascontiguousarray(matrix[np.ix_(rows, columns)]).reshape(-1)
    return TensorWords(tensor.dtype, (rows.size, columns.size), words)


@dataclass(frozen=True)
class Spectrum:
    """What a sample says: about how many directions pay if they leave only rounding, or if they leave more.

    0 is for what cannot be.
    """

    whole: int
    part: int


def _energies(d: Matrix) -> Matrix:
    """The largest squared singular values of a matrix that is not wider than high."""
    return least_squares.largest_eigenvalues(least_squares.multiply_transposed(d, d), _LARGEST_RANK)


@lru_cache(maxsize=64)
def _shares_by_chance(rows: int, columns: int) -> Matrix:
    """The share of the energy of noise in its first k directions, for k from 1."""
    shares: Matrix = np.cumsum(_energies(_signs(rows, columns))) / (rows * columns)
    return np.minimum(shares, 1.0)


def look(new: TensorWords, base: TensorWords) -> Spectrum | None:
    """What a spread sample says of the difference; None if factors are not worth a search.

    A word costs half the ``log2`` of its energy over that of rounding; a direction lowers the
    energy, and costs its numbers in both factors.
    """
    target = Target(new.dtype, new.shape)
    sides = [
        np.unique(np.linspace(0, n - 1, _SAMPLE_SIDE).astype(np.int64))
        for n in (target.rows, target.row_words)
    ]
    new, base = _part(new, *sides), _part(base, *sides)
    d, noise = _difference(new, base).reshape(new.shape), float((_ulps(new) ** 2).sum()) / 12
    # Row by row, as delta/1 would: a few busy rows are of low rank too, but need no factors.
    before = 0.5 * float(np.log2(1 + (d**2).sum(axis=1) / (noise / d.shape[0])).mean())
    d = d if d.shape[0] >= d.shape[1] else np.ascontiguousarray(d.T)
    energies = _energies(d)
    total = float((d**2).sum())
    k = np.arange(1, energies.size + 1)
    left = np.maximum(total - np.cumsum(energies), 0.0)
    # Rounding alone would leave (1 - k/m)(1 - k/n) of its energy.
    floor = noise * (1 - k / d.shape[0]) * np.maximum(1 - k / d.shape[1], 0) + 1e-12 * total
    numbers = k * (target.rows + target.row_words) / target.words
    # The first directions of noise, too, hold much in a small sample and little in a large matrix.
    by_chance = _shares_by_chance(*d.shape)[: k.size]
    beyond = np.clip((1 - left / max(total, 1e-300) - by_chance) / (1 - by_chance + 1e-9), 0, 1)
    in_whole = np.interp(k * d.shape[1] / min(target.rows, target.row_words), k, by_chance, left=0.0)
    after = total * (1 - beyond) * (1 - in_whole)
    gain = before - 0.5 * np.log2(1 + after / noise)
    part = np.where(
        (k > _LARGEST_PART) | (left <= _ONE_ROUNDING * floor), -np.inf, gain - numbers * _PART_BITS
    )
    whole = np.where(left > _ROUNDINGS * floor, -np.inf, gain - numbers * _WHOLE_BITS)
    ranks = Spectrum(_best_rank(whole), _best_rank(part) if new.dtype in _PART_DTYPES else 0)
    return ranks if ranks.whole or ranks.part else None


def _best_rank(gains: Matrix) -> int:
    """The rank (1 and up) that gains most bits a word; 0 where none gains enough."""
    best = int(gains.argmax())
    return best + 1 if gains[best] > _LEAST_GAIN else 0


def _signs(rows: int, columns: int) -> Matrix:
    """A fixed matrix of pseudo-random signs."""
    mixed = np.arange(1, rows * columns + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.where(mixed >> np.uint64(63), 1.0, -1.0).reshape(rows, columns)


def _principal(d: Matrix, width: int, noise: float) -> tuple[Matrix, Matrix]:
    """Real factors above the noise from a randomised sketch of ``width`` directions, balanced.

    Halko, Martinsson, Tropp, "Finding structure with randomness", 2011, §4.
    """
    width = min(width, *d.shape)
    basis = least_squares.orthonormal(least_squares.multiply(d, _signs(d.shape[1], width)))
    basis = least_squares.orthonormal(least_squares.multiply_transposed(d, basis))
    u = least_squares.multiply(d, basis)
    values, vectors = least_squares.eigen(least_squares.multiply_transposed(u, u))
    # The largest singular value of noise alone (Marchenko and Pastur), with some room.
    floor = 1.5 * noise * (d.shape[0] ** 0.5 + d.shape[1] ** 0.5) ** 2
    rank = max(int(np.count_nonzero(values > floor)), 1)
    vectors = np.ascontiguousarray(vectors[:, :rank])
    balance = np.maximum(values[:rank], 1e-300) ** 0.25
    return least_squares.multiply(u, vectors) / balance, least_squares.multiply(basis, vectors) * balance


def _refined(d: Matrix, w: Matrix, u: Matrix, v: Matrix) -> tuple[Matrix, Matrix]:
    """A round of weighted least squares for both factors, where that is affordable."""
    if d.size * u.shape[1] ** 2 > _WEIGHTED_COST:
        return u, v
    v = least_squares.weighted_rows(np.ascontiguousarray(d.T), np.ascontiguousarray(w.T), u)
    return least_squares.weighted_rows(d, w, v), v


def _sharpened(d: Matrix, w: Matrix, ulps: Matrix, u: Matrix, v: Matrix) -> tuple[Matrix, Matrix]:
    """Factors that leave fewer predictions outside the interval that rounds to the right word.

    Rounding hides where in its interval a value was, so only predictions outside are wrong: each
    round aims beyond the nearest end for those, and at the prediction itself for the others.
    """
    for _ in range(min(_MOST_ROUNDS, int(_SHARPENING_COST / (d.size * u.shape[1] ** 2)))):
        product = least_squares.multiply(u, np.ascontiguousarray(v.T))
        inside = np.clip(product, d - ulps / 2, d + ulps / 2)
        u, v = _refined(product + _OVERSHOOT * (inside - product), w, u, v)
    return u, v


def _unit(factor: Matrix, bits: int) -> int:
    """The power of two in units of which the largest number of ``factor`` has ``bits`` bits."""
    return int(np.frexp(np.abs(factor).max() or 1.0)[1]) - (bits - 1)


def rounded(u: Matrix, v: Matrix, bits: int) -> Factors:
    """Integer factors of ``bits`` bits, the sign included."""
    units = _unit(u, bits), _unit(v, bits)
    whole = [np.rint(np.ldexp(f, -k)).astype(np.int64) for f, k in zip((u, v), units, strict=True)]
    return Factors(whole[0], whole[1], sum(units))


def _quantised(d: Matrix, w: Matrix, u: Matrix, v: Matrix, bits: int) -> Factors:
    """Integer factors of ``bits`` bits; u is fitted to the v that was rounded."""
    unit = _unit(v, bits)
    v = np.ldexp(np.rint(np.ldexp(v, -unit)), unit)
    if d.size * u.shape[1] ** 2 <= _WEIGHTED_COST:
        u = least_squares.weighted_rows(d, w, v)
    return rounded(u, v, bits)


def find(new: TensorWords, base: TensorWords, cost: Callable[[Factors], float]) -> Factors | None:
    """The factors that make ``new`` from ``base`` and ``cost`` least; None when the rank is not low."""
    target = Target(new.dtype, new.shape)
    if min(target.rows, target.row_words) < _SMALLEST_SIDE:
        return None
    spectrum = look(new, base)
    if spectrum is None:
        return None
    d = _difference(new, base).reshape(target.rows, target.row_words)
    ulps = _ulps(new).reshape(d.shape)
    # The product itself was rounded too, to f32: half a unit of its typical size.
    noise = ulps**2 / 12 + float(np.mean(d**2)) * 2.0**-48
    choices: list[Factors] = []
    if spectrum.part:
        u, v = _principal(d, spectrum.part, 0.0)
        choices += [rounded(u, v, bits) for bits in _PART_CHOICES]
    if spectrum.whole:
        u, v = _principal(d, spectrum.whole + 8, float(noise.mean()))
        w = 1.0 / noise
        w /= w.mean()
        u, v = _refined(d, w, u, v)
        if new.dtype in _PART_DTYPES:
            u, v = _sharpened(d, w, ulps, u, v)
            d = least_squares.multiply(u, np.ascontiguousarray(v.T))
        choices += [_quantised(d, w, u, v, bits) for bits in _BITS[new.dtype]]
    exact = [factors for factors in choices if factors.is_exact() and abs(factors.scale) <= _LARGEST_SCALE]
    return min(exact, key=cost, default=None)
