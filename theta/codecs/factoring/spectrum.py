"""The rank of a difference, in all or in part, estimated from a sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from theta._numpy import np
from theta.codecs import arith
from theta.codecs.base import Target, TensorWords, evenly

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

PART_DTYPES: Final = ("f16", "bf16")
_SAMPLE_SIDE: Final = 192
_GLANCED_SIDE: Final = 64
_GLANCED_RANK: Final = 40
_LARGEST_RANK: Final = 136
_LARGEST_PART: Final = 48
_WHOLE_BITS: Final = 12.0
_PART_BITS: Final = 4.0
_ROUNDINGS: Final = 5.5
_ONE_ROUNDING: Final = 1.5
"""The energy, in units of that of one rounding, that a whole update may leave, and surely leaves.

More than one is left where the base was rounded too, or lies several merges back.
"""
_LEAST_GAIN: Final = 0.08
_SLACK: Final = 1e-3


@dataclass(frozen=True)
class Spectrum:
    """About how many directions pay if they leave only rounding, or if they leave more.

    0 is for what cannot be.  ``noise`` is the energy of a word's rounding, ``half_unit`` the median of
    half the unit in the last place; ``product_noise`` is what rounding a product to f32 does to a word.
    """

    whole: int
    part: int
    noise: float
    half_unit: float
    product_noise: float


def _ulps(new: TensorWords) -> Matrix:
    """Return the unit in the last place of every word."""
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
    """Return a submatrix."""
    matrix = tensor.words.reshape(-1, Target(tensor.dtype, tensor.shape).row_words)
    words = np.ascontiguousarray(matrix[np.ix_(rows, columns)]).reshape(-1)
    return TensorWords(tensor.dtype, (rows.size, columns.size), words)


def _energies(d: Matrix) -> Matrix:
    """Return the largest squared singular values of a matrix that is not wider than high."""
    return _eigenvalues(d.T @ d)


def _eigenvalues(gram: Matrix) -> Matrix:
    found: Matrix = np.maximum(np.linalg.eigvalsh(gram)[::-1][:_LARGEST_RANK], 0.0)
    return found


def _most(gram: Matrix) -> Matrix:
    """Bound the sums of the largest eigenvalues by their sum and the sum of their squares."""
    n, total = gram.shape[0], float(np.trace(gram))
    k = np.arange(1, min(n, _LARGEST_RANK) + 1)
    spread = max(float(np.vdot(gram, gram)) - total**2 / n, 0.0)
    most: Matrix = np.minimum(k / n * total + np.sqrt(spread * k * (n - k) / n), total)
    return most


@lru_cache(maxsize=64)
def _shares_by_chance(rows: int, columns: int) -> Matrix:
    """Return the share of the energy of noise in its first k directions, for k from 1."""
    shares: Matrix = np.cumsum(_energies(signs(rows, columns))) / (rows * columns)
    return np.minimum(shares, 1.0)


def signs(rows: int, columns: int) -> Matrix:
    """Return a fixed matrix of pseudo-random signs."""
    mixed = np.arange(1, rows * columns + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.where(mixed >> np.uint64(63), 1.0, -1.0).reshape(rows, columns)


@dataclass(frozen=True)
class _Sample:
    """A spread sample of a difference, not wider than high, and what is known of the whole.

    Attributes:
        d: the sample.
        noise: the energy of its rounding.
        before: the bits of a word without factors.
        target: the whole matrix.
        has_part: whether directions may pay that leave more than rounding.
    """

    d: Matrix
    noise: float
    before: float
    target: Target
    has_part: bool

    @property
    def total(self) -> float:
        """The energy."""
        return float((self.d**2).sum())

    def floor(self, k: NDArray[np.int64]) -> Matrix:
        """Return what is left of the energy of rounding alone without k directions."""
        shape = self.d.shape
        found: Matrix = self.noise * (1 - k / shape[0]) * np.maximum(1 - k / shape[1], 0)
        return found + 1e-12 * self.total

    def gains(self, sums: Matrix, surely: float = _ONE_ROUNDING) -> tuple[Matrix, Matrix]:
        """Return the bits a word that k directions save whose energies add up to ``sums``, for k from 1.

        First for those that leave only rounding, then for those that leave more than ``surely`` of it.
        """
        target, shape, total = self.target, self.d.shape, self.total
        k = np.arange(1, sums.size + 1)
        left = np.maximum(total - sums, 0.0)
        floor = self.floor(k)
        numbers = k * (target.rows + target.row_words) / target.words
        # The first directions of noise, too, hold much in a small sample and little in a large matrix.
        by_chance = _shares_by_chance(*shape)[: k.size]
        beyond = np.clip((1 - left / max(total, 1e-300) - by_chance) / (1 - by_chance + 1e-9), 0, 1)
        in_whole = np.interp(k * shape[1] / min(target.rows, target.row_words), k, by_chance, left=0.0)
        after = total * (1 - beyond) * (1 - in_whole)
        gain = self.before - 0.5 * np.log2(1 + after / self.noise)
        whole = np.where(left > _ROUNDINGS * floor, -np.inf, gain - numbers * _WHOLE_BITS)
        part = np.where((k > _LARGEST_PART) | (left <= surely * floor), -np.inf, gain - numbers * _PART_BITS)
        return whole, part if self.has_part else part[:0]

    def is_hopeless(self, gram: Matrix) -> bool:
        """Return whether no eigenvalues of ``gram`` with its trace, norm and determinant would pay.

        That takes a fifth of the time of finding them.  More energy in fewer directions pays more.
        """
        whole, part = self.gains(_most(gram), surely=-1.0)
        if _best_rank(part)[0] or not _best_rank(whole)[0]:
            return not _best_rank(part)[0]
        sign, logarithm = np.linalg.slogdet(gram)
        k = np.arange(1, whole.size + 1)
        rest = np.maximum(gram.shape[0] - k, 1)
        # The product of numbers is largest if they are equal: so are those that leave no more than rounding.
        largest = k * np.log(self.total / k) + rest * np.log(_ROUNDINGS * self.floor(k) / rest)
        is_possible = (sign <= 0) | (logarithm <= largest + _SLACK) | (k == gram.shape[0])
        return not _best_rank(np.where(is_possible, whole, -np.inf))[0]


def _sample(new: TensorWords, base: TensorWords, side: int) -> tuple[_Sample, Matrix]:
    """Return a sample of the difference of so many rows and columns, and the units of its words."""
    target = Target(new.dtype, new.shape)
    sides = [evenly(n, side) for n in (target.rows, target.row_words)]
    new, base = _part(new, *sides), _part(base, *sides)
    ulps = _ulps(new)
    d, noise = _difference(new, base).reshape(new.shape), float((ulps**2).sum()) / 12
    # Row by row, as delta/1 would: a few busy rows are of low rank too, but need no factors.
    before = 0.5 * float(np.log2(1 + (d**2).sum(axis=1) / (noise / d.shape[0])).mean())
    d = d if d.shape[0] >= d.shape[1] else np.ascontiguousarray(d.T)
    return _Sample(d, noise, before, target, new.dtype in PART_DTYPES), ulps


def glance(new: TensorWords, base: TensorWords) -> bool:
    """Return whether a small sample has a few directions that would pay: a quarter of :func:`look`'s work.

    It does not see an update whose rank is larger than ``_GLANCED_RANK``.
    """
    sample, _ = _sample(new, base, _GLANCED_SIDE)
    sums = np.cumsum(_eigenvalues(sample.d.T @ sample.d))
    return any(_best_rank(gains[:_GLANCED_RANK])[0] for gains in sample.gains(sums))


def look(new: TensorWords, base: TensorWords) -> Spectrum | None:
    """Look at the spectrum of a spread sample of the difference; None if factors are not worth a search.

    A word costs half the ``log2`` of its energy over that of rounding; a direction lowers the
    energy, and costs its numbers in both factors.
    """
    sample, ulps = _sample(new, base, _SAMPLE_SIDE)
    gram = sample.d.T @ sample.d
    if sample.is_hopeless(gram):
        return None
    ranks = [_best_rank(gains) for gains in sample.gains(np.cumsum(_eigenvalues(gram)))]
    # What leaves only rounding is worth sharpening, so it gains more than this says.
    ranks[1] = (0, 0.0) if ranks[0][1] >= ranks[1][1] else ranks[1]
    if not (ranks[0][0] or ranks[1][0]):
        return None
    return Spectrum(
        ranks[0][0],
        ranks[1][0],
        (sample.noise + sample.total * 2.0**-48) / ulps.size,
        float(np.median(ulps)) / 2,
        (sample.total / ulps.size) ** 0.5 * 2.0**-24,
    )


def _best_rank(gains: Matrix) -> tuple[int, float]:
    """Return the rank (from 1) that saves most bits a word, and how many; 0 when none saves enough."""
    best = int(gains.argmax()) if gains.size else 0
    return (best + 1, float(gains[best])) if gains.size and gains[best] > _LEAST_GAIN else (0, 0.0)
