"""Updates that somebody brings: applied so that the layer which stores them needs no residual.

A merge in floating point depends on the order of a matrix product.  Here the new value is by
definition what the decoder will compute: the factors are made whole numbers as precise as their own
bytes can pay for, the product is exact, and each word is rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from theta._numpy import np
from theta.codecs import arith, lowrank, scaled
from theta.codecs.base import Encode, Range, Target, TensorWords
from theta.codecs.factoring.factors import Factors, has_room, rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

_PIECE: Final = 1 << 20
_MOST_BITS: Final = 31
_SPARE_BITS: Final = 8
_LEAST_BITS: Final = 4
_BEYOND_WEIGHTS: Final = 12


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


def whole_factors(u: Matrix, v: Matrix, most: int, least: int, budget: int) -> Factors:
    """Return integer factors for ``u`` (m, r) and ``v`` (n, r), of at most ``budget`` bytes if possible.

    They have ``most`` bits, or as few as it takes, but not fewer than ``least``.
    """
    u, v = _balanced(u, v)
    for bits in range(most, least, -1):
        found = rounded(u, v, bits)
        if found.is_exact() and len(lowrank.pack(found)) <= budget:
            return found
    return rounded(u, v, least)


def fits_low_rank(base: TensorWords, rank: int) -> bool:
    """Return whether a product of this rank can be stored on ``base`` as factors."""
    target = Target(base.dtype, base.shape)
    return lowrank.fits(target, base) and has_room(rank, target.rows, target.row_words)


def add_product(base: TensorWords, u: Matrix, v: Matrix, mantissa: int, budget: int) -> Applied:
    """Return ``base + u @ v.T`` on the 2-d view of ``base``, a tensor of floats.

    ``mantissa`` is the number of significant bits that the factors came with; ``budget`` the bytes
    that they may take.
    """
    if not fits_low_rank(base, u.shape[1]):
        return _added(base, u, v)
    # What the numbers came with and some bits for the small ones, as far as the weights can tell.
    most = min(mantissa + _SPARE_BITS, arith.mantissa_bits(base.dtype) + _BEYOND_WEIGHTS, _MOST_BITS)
    least = min(mantissa + _LEAST_BITS, most)
    factors = whole_factors(u, v, most, least, budget)
    if not factors.is_storable:
        return _added(base, u, v)
    pieces = [lowrank.predict(base, factors, *r) for r in _pieces(Target(base.dtype, base.shape))]
    new = TensorWords(base.dtype, base.shape, np.concatenate(pieces))
    return Applied(new, lambda new, base, ranges: lowrank.encode_factors(new, base, ranges, factors))


def _added(base: TensorWords, u: Matrix, v: Matrix) -> Applied:
    """Return ``base + u @ v.T`` without factors to store."""
    values = arith.to_values(base.words, base.dtype) + (u @ v.T).reshape(-1)
    return Applied(TensorWords(base.dtype, base.shape, arith.to_words(values, base.dtype)))


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
