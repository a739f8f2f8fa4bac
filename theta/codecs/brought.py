"""Updates that somebody brings: the new value is the correctly rounded one, whatever stores it.

The sum of a matrix and a product is rounded once from its exact value, so it depends on no order of
additions and on no machine.  The layer that stores it has factors of whole numbers, with as few bits as pay
for themselves, and a residual in the few elements where their product rounds to another word.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from theta._blas import one_thread
from theta._numpy import np
from theta.codecs import arith, lowrank, scaled
from theta.codecs.base import Encode, Range, Target, TensorWords
from theta.codecs.factoring import exact_sums
from theta.codecs.factoring.exact_sums import Product
from theta.codecs.factoring.factors import Factors, has_room, rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

_PIECE: Final = 1 << 20
_MOST_BITS: Final = 31
_LEAST_BITS: Final = 8
_BEYOND_WEIGHTS: Final = 8
"""The bits of factors, beyond those of the weights, that are often the best."""
_STEP: Final = 2
_SAMPLE: Final = 1 << 14


@dataclass(frozen=True)
class Applied:
    """The updated tensor, and how it is encoded on the old one (none: the chooser's business)."""

    new: TensorWords
    encode: Encode | None = None


def _pieces(target: Target) -> Iterable[Range]:
    """Yield whole rows, about a million words at a time."""
    step = max(_PIECE // max(target.row_words, 1), 1) * max(target.row_words, 1)
    return ((at, min(at + step, target.words)) for at in range(0, target.words, step))


def _balanced(u: Matrix, v: Matrix) -> tuple[Matrix, Matrix]:
    """Balance the columns of two factors by powers of two; drop those that are zero in one."""
    tops = np.abs(u).max(axis=0), np.abs(v).max(axis=0)
    used = (tops[0] > 0) & (tops[1] > 0)
    if not used.any():
        return u[:, :1] * 0, v[:, :1] * 0
    shift = (np.frexp(tops[1][used])[1] - np.frexp(tops[0][used])[1]) // 2
    return np.ldexp(u[:, used], shift), np.ldexp(v[:, used], -shift)


def fits_low_rank(base: TensorWords, rank: int) -> bool:
    """Return whether a product of this rank can be stored on ``base`` as factors."""
    target = Target(base.dtype, base.shape)
    return lowrank.fits(target, base) and has_room(rank, target.rows, target.row_words)


def add_product(base: TensorWords, product: Product) -> Applied:
    """Return ``base`` plus ``product`` on the 2-d view of ``base``, a tensor of floats."""
    new = TensorWords(base.dtype, base.shape, exact_sums.added(base, product))
    if not fits_low_rank(base, product.u.shape[1]):
        return Applied(new)
    factors = whole_factors(base, new, *_balanced(product.scaled, product.v))
    if not factors.is_storable:
        return Applied(new)
    return Applied(new, lambda new, base, ranges: lowrank.encode_factors(new, base, ranges, factors))


def whole_factors(base: TensorWords, new: TensorWords, u: Matrix, v: Matrix) -> Factors:
    """Return integer factors for ``u`` (m, r) and ``v`` (n, r), of the bits that make about the least bytes.

    Two bits more take two bits of each number of the factors, and the prediction of fewer words is wrong.
    """
    known: dict[int, tuple[float, Factors]] = {}

    def cost(bits: int) -> float:
        if bits not in known:
            found = rounded(u, v, bits)
            size = (u.size + v.size) * bits + new.words.size * _residual_bits(_wrong(base, new, found))
            known[bits] = (size if found.is_storable else math.inf), found
        return known[bits][0]

    best = min(arith.mantissa_bits(base.dtype) + _BEYOND_WEIGHTS, _MOST_BITS)
    for way in (_STEP, -_STEP):
        while _LEAST_BITS <= best + way <= _MOST_BITS and cost(best + way) <= cost(best):
            best += way
    return known[best][1]


def _wrong(base: TensorWords, new: TensorWords, factors: Factors) -> float:
    """Return the share of words that ``factors`` predict wrongly, from a sample of rows."""
    if not factors.is_storable:
        return 0.5
    row = Target(new.dtype, new.shape).row_words
    rows = min(max(_SAMPLE // row, 1), factors.u.shape[0])
    start = (factors.u.shape[0] - rows) // 2 * row
    stop = start + rows * row
    differ = lowrank.predict(base, factors, start, stop) != new.read(start, stop)
    share: float = max(int(np.count_nonzero(differ)), 1) / (stop - start)
    return share


def _residual_bits(wrong: float) -> float:
    """Return about the bits a word of a residual in which this share differs, fitted to merged adapters."""
    share = min(wrong, 0.5)
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return entropy + 1.5 * wrong + 2 * max(math.log2(wrong) + 1, 0.0)


def add_with_norms(base: TensorWords, product: Product, norms: Matrix, by_column: bool) -> Applied:
    """Return ``base`` plus ``product``, each row or column scaled to its norm.

    That is DoRA, ``m * (W + s B A) / ||W + s B A||`` (S.-Y. Liu et al., 2402.09353, equation 5), computed in
    float64 and rounded once.
    """
    target = Target(base.dtype, base.shape)
    row = max(target.row_words, 1)

    def summed(start: int, stop: int) -> Matrix:
        found = product.scaled[start // row : stop // row] @ product.v.T
        found += arith.to_values(base.read(start, stop), base.dtype).reshape(found.shape)
        return found

    pieces = list(_pieces(target))
    with one_thread, np.errstate(all="ignore"):
        if by_column:
            squares = np.sum([np.square(summed(*r)).sum(axis=0) for r in pieces], axis=0)
            factors = [(norms / np.sqrt(squares))[None, :]] * len(pieces)
        else:
            lengths = [np.linalg.norm(summed(*r), axis=1) for r in pieces]
            factors = [(norms / np.concatenate(lengths))[a // row : b // row, None] for a, b in pieces]
        pairs = zip(pieces, factors, strict=True)
        words = [arith.to_words((summed(*r) * by).reshape(-1), base.dtype) for r, by in pairs]
    return Applied(TensorWords(base.dtype, base.shape, np.concatenate(words)))


def multiply(base: TensorWords, factors: NDArray[np.float64]) -> Applied:
    """Return ``base * factors``, which must broadcast to the shape of ``base``, a tensor of floats."""
    target = Target(base.dtype, base.shape)
    line = _line_factors(base.shape, factors)
    if line is None:
        spread = np.broadcast_to(factors, base.shape).reshape(-1)
        with np.errstate(all="ignore"):
            values = arith.to_values(base.words, base.dtype) * spread
        return Applied(TensorWords(base.dtype, base.shape, arith.to_words(values, base.dtype)))
    by, lines = line
    pieces = [scaled.predict(base, by, lines, *r) for r in _pieces(target)]
    new = TensorWords(base.dtype, base.shape, np.concatenate(pieces) if pieces else base.words)
    return Applied(new, lambda new, base, ranges: scaled.encode_factors(new, base, ranges, by, lines))


def _line_factors(
    shape: tuple[int, ...], factors: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64]] | None:
    """Return one factor a row (0) or a column (1) of the 2-d view; None when it takes more."""
    if len(shape) < 2 or 0 in shape:
        return None
    full = factors.reshape((1,) * (len(shape) - factors.ndim) + factors.shape)
    if full.size == full.shape[0]:
        return 0, np.ascontiguousarray(np.broadcast_to(full.reshape(-1), (shape[0],)))
    if full.shape[0] == 1:
        return 1, np.ascontiguousarray(np.broadcast_to(full[0], shape[1:]).reshape(-1))
    return None
