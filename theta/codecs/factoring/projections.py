"""Finding thin factors: alternating projections onto matrices of low rank and onto what rounds to the words.

Rounding hides where in its interval a value was.  So factors are wanted whose product lies in the
interval of each word.  Each half of a round moves one factor, the other held, by least squares towards
what the product lacks: to the middle of the intervals in the first rounds, then to their nearest ends,
and beyond (over-relaxed, with momentum).  The BLAS is held to one thread by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._blas import one_thread
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
_TILE_WORDS: Final = 1 << 16
_KEPT_WORDS: Final = 1 << 24
"""Words of the largest matrix whose tiles are computed once."""
_BITS: Final = {"f16": (8, 17), "bf16": (8, 17), "f32": (16, 28)}
_ROUNDED_AWAY: Final = {"f16": 1.3, "bf16": 1.3, "f32": 2.55}
"""The most that rounding the factors may add to what they leave, for each number that a word pays for."""
_TRIAL_BITS: Final = 13


@dataclass(frozen=True)
class _Tile:
    """Some rows: the middles of the intervals of the words, and half of their widths."""

    rows: slice
    d: Matrix
    half: NDArray[np.float32]


@dataclass
class Steps:
    """The differences of a matrix to its base, by tiles of rows."""

    new: TensorWords
    base: TensorWords
    noise: float = 0.0
    """The error that the product's own rounding to f32 is expected to add."""
    reference: float = float("inf")
    """The half-unit up to which words have the weight 1."""
    _kept: dict[int, _Tile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        target = Target(self.new.dtype, self.new.shape)
        self.shape = target.rows, target.row_words
        self.kind = np.float64 if self.new.dtype == "f32" else np.float32
        self._height = max(_TILE_WORDS // self.shape[1], 1)
        self.count = -(-self.shape[0] // self._height)

    def tile(self, number: int) -> _Tile:
        """Return the rows of one tile."""
        found = self._kept.get(number)
        if found is None:
            found = self._tile(number)
            if self.new.words.size <= _KEPT_WORDS:
                self._kept[number] = found
        return found

    def tiles(self) -> Any:
        """Return all tiles in order."""
        return map(self.tile, range(self.count))

    def _tile(self, number: int) -> _Tile:
        rows = slice(number * self._height, min((number + 1) * self._height, self.shape[0]))
        words = slice(rows.start * self.shape[1], rows.stop * self.shape[1])
        shape = rows.stop - rows.start, self.shape[1]
        new, base = (_values(t.words[words], t.dtype).reshape(shape) for t in (self.new, self.base))
        d: Matrix = new.astype(self.kind, copy=False)
        d = d - base
        half = np.maximum(_half_units(new, self.new.dtype), np.float32(self.noise))
        finite = np.isfinite(d)
        if not finite.all():
            d, half = np.where(finite, d, 0).astype(self.kind), np.where(finite, half, np.float32(1e30))
        return _Tile(rows, d, half)


def _values(words: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Return the values of words of up to 32 bits, exactly."""
    if dtype == "bf16":
        return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return words.view(np.float16).astype(np.float32) if dtype == "f16" else words.view(np.float32)


def _half_units(values: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """Return half the unit in the last place of each value."""
    powers = (values.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
    smallest = np.float32(2.0 ** (-14 if dtype == "f16" else -126))
    return np.maximum(powers, smallest) * np.float32(2.0 ** -(arith.mantissa_bits(dtype) + 1))


def _orthonormal(columns: Matrix) -> Matrix:
    """Return an orthonormal basis of ``columns``, without directions that are lost in rounding."""
    wide = columns.astype(np.float64)
    values, vectors = np.linalg.eigh(wide.T @ wide)
    kept = values > 1e-12 * values[-1]
    found: Matrix = (wide @ (vectors[:, kept] / np.sqrt(values[kept]))).astype(columns.dtype)
    return found


def sketch(steps: Steps, width: int, noise: float) -> tuple[Matrix, Matrix]:
    """Return factors of the directions above the noise, of ``width`` or fewer, balanced.

    Halko, Martinsson, Tropp, "Finding structure with randomness", 2011, §4.
    """
    width = min(width, *steps.shape)
    spread = signs(steps.shape[1], width).astype(steps.kind)
    basis = _orthonormal(np.concatenate([tile.d @ spread for tile in steps.tiles()]))
    turned = np.zeros((steps.shape[1], basis.shape[1]), steps.kind)
    for tile in steps.tiles():
        turned += tile.d.T @ basis[tile.rows]
    basis = _orthonormal(turned)
    shares, total = np.concatenate([tile.d @ basis for tile in steps.tiles()]), 0.0
    for tile in steps.tiles():
        total += float(np.square(tile.d).sum(dtype=np.float64))
    wide = shares.astype(np.float64)
    values, vectors = np.linalg.eigh(wide.T @ wide)
    values, vectors = values[::-1], vectors[:, ::-1]
    if noise:
        noise = max(noise, (total - float(values.sum())) / (steps.shape[0] * steps.shape[1]))
    # The largest singular value of noise alone (Marchenko and Pastur), with some room.
    floor = 1.5 * noise * (steps.shape[0] ** 0.5 + steps.shape[1] ** 0.5) ** 2
    rank = max(int(np.count_nonzero(values > floor)), 1)
    balance = np.maximum(values[:rank], 1e-300) ** 0.25
    vectors = vectors[:, :rank]
    u, v = shares @ (vectors / balance), basis @ (vectors * balance)
    return u.astype(steps.kind), v.astype(steps.kind)


@dataclass(frozen=True)
class _Product:
    """Room for the product of factors in one tile, and for what of it is beyond the intervals."""

    product: Matrix
    beyond: NDArray[np.float32]
    reference: np.float32

    @classmethod
    def of(cls, steps: Steps) -> _Product:
        """Allocate the room for tiles of ``steps``."""
        shape = steps.tile(0).d.shape
        return cls(np.empty(shape, steps.kind), np.empty(shape, np.float32), np.float32(steps.reference))

    def beyond_in(self, tile: _Tile, u: Matrix, v: Matrix, to_the_middle: bool) -> NDArray[np.float32]:
        """Return by how much the product of the factors goes beyond, in a tile, weighted."""
        count = tile.d.shape[0]
        product = np.matmul(u[tile.rows], v.T, out=self.product[:count])
        inside = np.float32(0 if to_the_middle else _INSIDE)
        found = self.beyond[:count]
        product, d, half = (part.reshape(-1) for part in (product, tile.d, tile.half))
        kernels.floats.put_beyond(product, d, half, self.reference, inside, found.reshape(-1))
        return found


def _inverse(factor: Matrix) -> Matrix:
    """Return the inverse of ``factor.T @ factor``, for a step of least squares with the overshoot."""
    wide = factor.astype(np.float64)
    square = wide.T @ wide
    ridge = 1e-13 * np.trace(square) + 1e-300
    found: Matrix = np.linalg.inv(square + ridge * np.eye(square.shape[0])) * _OVERSHOOT
    return found


def fitted(steps: Steps, u: Matrix, v: Matrix) -> tuple[Matrix, Matrix]:
    """Return factors whose product leaves fewer words outside their intervals."""
    before, room = (u, v), _Product.of(steps)
    for to_the_middle in _TO_THE_MIDDLE[steps.new.dtype]:
        ahead = u + _MOMENTUM * (u - before[0]), v + _MOMENTUM * (v - before[1])
        before = u, v
        narrow, total = ahead[0].astype(np.float32), np.zeros(v.shape, np.float32)
        for tile in steps.tiles():
            total += room.beyond_in(tile, *ahead, to_the_middle).T @ narrow[tile.rows]
        v = (ahead[1] - total @ _inverse(ahead[0])).astype(steps.kind)
        narrow, inverse, u = v.astype(np.float32), _inverse(v), np.empty_like(u)
        for tile in steps.tiles():
            step = room.beyond_in(tile, ahead[0], v, to_the_middle) @ narrow
            u[tile.rows] = ahead[0][tile.rows] - step @ inverse
    return u, v


def _precision(steps: Steps, u: Matrix, v: Matrix) -> int:
    """Return the bits for the numbers of the factors; more would cost more than they save in words."""
    tile = steps.tile(steps.count // 2)
    beyond = np.abs(u[tile.rows] @ v.T - tile.d).reshape(-1)
    left = 2 * float(np.median(beyond[:: max(beyond.size >> 13, 1)])) + 1e-300
    units = 2.0 ** unit(u, _TRIAL_BITS), 2.0 ** unit(v, _TRIAL_BITS)
    energy = [float(np.square(f.astype(np.float64)).sum()) / f.shape[0] for f in (v, u)]
    added = ((units[0] ** 2 * energy[0] + units[1] ** 2 * energy[1]) / 12) ** 0.5
    numbers = u.shape[1] * (1 / u.shape[0] + 1 / v.shape[0])
    bits = _TRIAL_BITS + int(np.ceil(np.log2(added / left / numbers / _ROUNDED_AWAY[steps.new.dtype])))
    least, most = _BITS[steps.new.dtype]
    return min(max(bits, least), most)


def _whole(new: TensorWords, base: TensorWords, spectrum: Spectrum) -> Factors | None:
    """Return factors that leave no more than rounding; None when there are none."""
    steps = Steps(new, base, spectrum.product_noise, _WEIGHT * spectrum.half_unit)
    with np.errstate(all="ignore"):
        u, v = fitted(steps, *sketch(steps, spectrum.whole + _SPARE, spectrum.noise))
        if not (np.isfinite(u).all() and np.isfinite(v).all()):
            return None
        return rounded(u, v, _precision(steps, u, v))


def _parts(new: TensorWords, base: TensorWords, spectrum: Spectrum) -> list[Factors]:
    """Return coarse factors of the strongest directions."""
    with np.errstate(all="ignore"):
        u, v = sketch(Steps(new, base), spectrum.part, 0.0)
        if not (np.isfinite(u).all() and np.isfinite(v).all()):
            return []
    return [rounded(u, v, bits) for bits in _PART_CHOICES]


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
        choices = _parts(new, base, spectrum) if spectrum.part else []
        whole = _whole(new, base, spectrum) if spectrum.whole else None
    choices += [whole] if whole else []
    choices = [factors for factors in choices if factors.is_storable]
    return min(choices, key=cost, default=None) if len(choices) != 1 else choices[0]
