"""Finding thin factors: alternating projections onto matrices of low rank and onto what rounds to the words.

Rounding hides where in its interval a value was.  So factors are wanted whose product lies in the
interval of each word.  Each half of a round moves one factor, the other held, by least squares towards
what the product lacks: to the middle of the intervals in the first rounds, then to their nearest ends,
and beyond (over-relaxed, with momentum).  The BLAS is held to one thread by the caller.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from theta._blas import one_thread
from theta._kernels import pulls
from theta._numpy import np
from theta.codecs import arith
from theta.codecs.base import Target, TensorWords
from theta.codecs.factoring.factors import Factors, rounded, unit
from theta.codecs.factoring.spectrum import Spectrum, glance, look, signs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[Any]
    """A matrix of float32, or of float64 for words of 32 bits."""

_SMALLEST_SIDE: Final = 32
_PART_CHOICES: Final = (4, 5)
_TO_THE_MIDDLE: Final = {
    "f16": (True, True, False, False),
    "bf16": (True, True, False, False),
    "f32": (True, False),
}
"""For each round whether the product is to be in the middle of the intervals, or just inside.

What f32 leaves is the rounding of the product when it was merged, which more rounds do not find.
"""
_INSIDE: Final = 0.8
"""The part of an interval, around its middle, that is inside enough."""
_MOMENTUM: Final = 0.7
_OVERSHOOT: Final = 1.9
_WEIGHT: Final = 0.25
"""The weight of a word is 1 up to this share of the median interval; then it falls as the interval grows."""
_SPARE: Final = 8
"""Directions of the sketch beyond the expected rank."""
_MIDDLE_WORDS: Final = 1 << 16
"""About how many words of the middle rows tell the bits of the factors."""
_BITS: Final = {"f16": (8, 17), "bf16": (8, 17), "f32": (16, 28)}
_ROUNDED_AWAY: Final = {"f16": 1.3, "bf16": 1.3, "f32": 2.55}
"""The most that rounding the factors may add to what they leave, for each number that a word pays for."""
_TRIAL_BITS: Final = 13


@dataclass(frozen=True)
class Steps:
    """The differences of a matrix to its base."""

    new: TensorWords
    base: TensorWords
    noise: float = 0.0
    """The error that the product's own rounding to f32 is expected to add."""
    reference: float = float("inf")
    """The half-unit up to which words have the weight 1."""

    @cached_property
    def shape(self) -> tuple[int, int]:
        """The rows and columns."""
        target = Target(self.new.dtype, self.new.shape)
        return target.rows, target.row_words

    @cached_property
    def kind(self) -> type[Any]:
        """The type of the numbers of factors."""
        return np.float64 if self.new.dtype == "f32" else np.float32

    @cached_property
    def beyond(self) -> pulls.Pulls:
        """The sums of pulls: of what a product is beyond the intervals."""
        return pulls.Pulls(self.new.words, self.base.words, arith.layout(self.new.dtype), self.kind)

    def intervals(self, inside: float) -> pulls.Intervals:
        """Return the intervals, of which the inner part ``inside`` is inside enough."""
        return pulls.Intervals(*map(np.float32, (inside, self.noise, self.reference)))

    def middle(self) -> tuple[slice, Matrix]:
        """Return some rows in the middle, and their differences."""
        height = min(max(_MIDDLE_WORDS // self.shape[1], 1), self.shape[0])
        first = (self.shape[0] - height) // 2
        words = slice(first * self.shape[1], (first + height) * self.shape[1])
        new, base = (arith.to_values(t.words[words], t.dtype) for t in (self.new, self.base))
        d = new - base
        return slice(first, first + height), np.where(np.isfinite(d), d, 0).reshape(height, -1)


def _orthonormal(columns: Matrix) -> Matrix:
    """Return an orthonormal basis of ``columns``, without directions that are lost in rounding.

    Raises ``LinAlgError`` if there is none, or if numbers overflowed.
    """
    wide = columns.astype(np.float64)
    values, vectors = np.linalg.eigh(wide.T @ wide)
    kept = values > 1e-12 * values[-1]
    if not kept.any():
        raise np.linalg.LinAlgError("no direction is left")
    found: Matrix = (wide @ (vectors[:, kept] / np.sqrt(values[kept]))).astype(columns.dtype)
    return found


def sketch(steps: Steps, width: int, noise: float) -> tuple[Matrix, Matrix]:
    """Return factors (m, r) and (r, n) of the directions above the noise, of ``width`` or fewer, balanced.

    Halko, Martinsson, Tropp, "Finding structure with randomness", 2011, §4.
    """
    rows, columns = steps.shape
    width = min(width, rows, columns)
    # What is beyond points that nothing reaches yet: the differences, negative.
    nothing = np.zeros((rows, 0), steps.kind), np.zeros((0, columns), steps.kind)
    points = pulls.Intervals(*map(np.float32, (0.0, 0.0, np.inf)))
    basis = steps.beyond.to_rows(points, *nothing, signs(width, columns).astype(steps.kind))
    turned, total = steps.beyond.to_columns(points, *nothing, _orthonormal(basis))
    basis = _orthonormal(turned.T)
    shares = -steps.beyond.to_rows(points, *nothing, basis.T)
    wide = shares.astype(np.float64)
    values, vectors = np.linalg.eigh(wide.T @ wide)
    values, vectors = values[::-1], vectors[:, ::-1]
    if noise:
        noise = max(noise, (total - float(values.sum())) / (rows * columns))
    # The largest singular value of noise alone (Marchenko and Pastur), with some room.
    floor = 1.5 * noise * (rows**0.5 + columns**0.5) ** 2
    rank = max(int(np.count_nonzero(values > floor)), 1)
    balance = np.maximum(values[:rank], 1e-300) ** 0.25
    vectors = vectors[:, :rank]
    u, v = shares @ (vectors / balance), (vectors * balance).T @ basis.T
    return u.astype(steps.kind), v.astype(steps.kind)


def _inverse(factor: Matrix) -> Matrix:
    """Return the inverse of ``factor.T @ factor``, for a step of least squares with the overshoot."""
    wide = factor.astype(np.float64)
    square = wide.T @ wide
    ridge = 1e-13 * np.trace(square) + 1e-300
    found: Matrix = np.linalg.inv(square + ridge * np.eye(square.shape[0])) * _OVERSHOOT
    return found


def fitted(steps: Steps, u: Matrix, v: Matrix) -> tuple[Matrix, Matrix]:
    """Return factors whose product leaves fewer words outside their intervals."""
    before = u, v
    for to_the_middle in _TO_THE_MIDDLE[steps.new.dtype]:
        intervals = steps.intervals(0.0 if to_the_middle else _INSIDE)
        ahead = u + _MOMENTUM * (u - before[0]), v + _MOMENTUM * (v - before[1])
        before = u, v
        pull, _ = steps.beyond.to_columns(intervals, *ahead, ahead[0])
        v = (ahead[1] - _inverse(ahead[0]) @ pull).astype(steps.kind)
        u = (ahead[0] - steps.beyond.to_rows(intervals, ahead[0], v, v) @ _inverse(v.T)).astype(steps.kind)
    return u, v


def _precision(steps: Steps, u: Matrix, v: Matrix) -> int:
    """Return the bits for the numbers of the factors; more would cost more than they save in words."""
    rows, d = steps.middle()
    beyond = np.abs(u[rows] @ v - d).reshape(-1)
    left = 2 * float(np.median(beyond[:: max(beyond.size >> 13, 1)])) + 1e-300
    units = 2.0 ** unit(u, _TRIAL_BITS), 2.0 ** unit(v, _TRIAL_BITS)
    energy = [float(np.square(f.astype(np.float64)).sum()) / n for f, n in ((v, v.shape[1]), (u, u.shape[0]))]
    added = ((units[0] ** 2 * energy[0] + units[1] ** 2 * energy[1]) / 12) ** 0.5
    numbers = u.shape[1] * (1 / u.shape[0] + 1 / v.shape[1])
    bits = _TRIAL_BITS + int(np.ceil(np.log2(added / left / numbers / _ROUNDED_AWAY[steps.new.dtype])))
    least, most = _BITS[steps.new.dtype]
    return min(max(bits, least), most)


def _whole(new: TensorWords, base: TensorWords, spectrum: Spectrum) -> list[Factors]:
    """Return factors that leave no more than rounding, if there are any."""
    steps = Steps(new, base, spectrum.product_noise, _WEIGHT * spectrum.half_unit)
    u, v = fitted(steps, *sketch(steps, spectrum.whole + _SPARE, spectrum.noise))
    return [rounded(u, v.T, _precision(steps, u, v))] if _are_finite(u, v) else []


def _parts(new: TensorWords, base: TensorWords, spectrum: Spectrum) -> list[Factors]:
    """Return coarse factors of the strongest directions."""
    u, v = sketch(Steps(new, base), spectrum.part, 0.0)
    return [rounded(u, v.T, bits) for bits in _PART_CHOICES] if _are_finite(u, v) else []


def _are_finite(u: Matrix, v: Matrix) -> bool:
    return bool(np.isfinite(u).all() and np.isfinite(v).all())


def _choices(new: TensorWords, base: TensorWords, spectrum: Spectrum) -> list[Factors]:
    """Return factors that may pay; there are none if differences overflow."""
    found: list[Factors] = []
    for rank, search in ((spectrum.part, _parts), (spectrum.whole, _whole)):
        with np.errstate(all="ignore"), contextlib.suppress(np.linalg.LinAlgError):
            found += search(new, base, spectrum) if rank else []
    return [factors for factors in found if factors.is_storable]


def find(
    new: TensorWords, base: TensorWords, cost: Callable[[Factors], float], hidden: bool = True
) -> Factors | None:
    """Find the factors by which ``new`` costs least on ``base``; None when the rank is not low.

    Unless ``hidden`` ones are wanted, they are looked for only where they show at a glance.
    """
    target = Target(new.dtype, new.shape)
    if min(target.rows, target.row_words) < _SMALLEST_SIDE:
        return None
    with one_thread:
        spectrum = look(new, base) if hidden or glance(new, base) else None
        if spectrum is None:
            return None
        choices = _choices(new, base, spectrum)
    return min(choices, key=cost, default=None) if len(choices) != 1 else choices[0]
