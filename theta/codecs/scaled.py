"""``scaled/1``: a chunk as the base times one factor a row or a column (as IA3 does).

The base has the same dtype (one with values: f16, bf16, f32, f64, f8_e4m3, f8_e5m2) and shape.
With rows of ``c`` words (``format.md``, section 7), word ``i`` is in row ``i // c`` and column
``i % c``.  The shared bytes are::

    u8       0: a factor for each row, 1: a factor for each column
    bytes    a dense chunk (theta.codecs.dense) of the factors as f64

A chunk is one residual section (theta.codecs.residual).  Its prediction is the product of the
base's value and the factor in float64, rounded to the dtype as in ``cast/1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.codecs import arith, dense, residual
from theta.codecs.base import Base, Encoded, Range, Target, TensorWords, evenly, word_dtype
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]
    Values = NDArray[np.float64]

NAME: Final = "scaled/1"
_BY_ROW, _BY_COLUMN = 0, 1
_FEW: Final = 12, 64
_MANY: Final = 48, 4096
"""Lines, and words of each, that are looked at before the whole tensor is."""
_TOUCHING: Final = 2.0**-6


def fits(target: Target, base: Base) -> bool:
    """Return whether ``base`` is like ``target`` and has rows of numbers."""
    same = (base.dtype, tuple(base.shape)) == (target.dtype, target.shape)
    return same and arith.has_values(target.dtype) and target.words > 0


def _predict(base: Words, dtype: str, by: int, factors: Values, columns: int, start: int) -> Words:
    """Return the base's words from ``start`` on, each times the factor of its line."""
    places = np.arange(start, start + base.size)
    lines = places // columns if by == _BY_ROW else places % columns
    with np.errstate(all="ignore"):
        return arith.to_words(arith.to_values(base, dtype) * factors[lines], dtype)


def predict(base: Base, by: int, factors: Values, start: int, stop: int) -> Words:
    """Return the words from ``start`` to ``stop`` of ``base``, each times the factor of its line."""
    columns = Target(base.dtype, base.shape).row_words
    return _predict(base.read(start, stop), base.dtype, by, factors, columns, start)


def _bounds(words: Words, dtype: str) -> tuple[Values, Values]:
    """Return, for finite words, the interval of values that round to each; else everything."""
    signed = words.view(f"<i{words.dtype.itemsize}")
    away = arith.to_values((signed + 1).view(words.dtype), dtype)
    exact = arith.to_values(words, dtype)
    magnitude = words & words.dtype.type((1 << (words.dtype.itemsize * 8 - 1)) - 1)
    back = np.where(magnitude > 0, arith.to_values((signed - 1).view(words.dtype), dtype), -away)
    with np.errstate(all="ignore"):
        ends = (exact + away) / 2, (exact + back) / 2
    low, high = np.minimum(*ends), np.maximum(*ends)
    known = np.isfinite(low) & np.isfinite(high)
    return np.where(known, low, -np.inf), np.where(known, high, np.inf)


def _factor_bounds(new: Words, base: Words, dtype: str) -> tuple[Values, Values]:
    """Return for each word the interval of factors that lead from base to new."""
    value = arith.to_values(base, dtype)
    low, high = _bounds(new, dtype)
    usable = np.isfinite(value) & (value != 0)
    with np.errstate(all="ignore"):
        ends = low / value, high / value
    low, high = np.minimum(*ends), np.maximum(*ends)
    return np.where(usable, low, -np.inf), np.where(usable, high, np.inf)


def simplest(low: Values, high: Values) -> Values:
    """Return a float64 with few bits in each interval; 1 for an interval that is empty or unbounded."""
    found = np.ones(low.size)
    open_lines = (low < high) & np.isfinite(low) & np.isfinite(high)
    todo = open_lines & ~((low < 1) & (high > 1))
    with np.errstate(invalid="ignore"):  # the middle of an unbounded interval is not asked for
        middle = np.where(todo, low / 2 + high / 2, 1.0)
    for dropped in range(51, -1, -1):
        unit = np.ldexp(1.0, np.frexp(middle)[1] - 53 + dropped)
        rounded = np.rint(middle / unit) * unit
        good = todo & (rounded > low) & (rounded < high)
        found = np.where(good, rounded, found)
        todo &= ~good
    return np.where(todo, middle, found)


def _fit(low: Values, high: Values, columns: int, by: int) -> tuple[Values, Values]:
    """Return the bounds of the factor of each line, from those of its words."""
    low, high, axis = low.reshape(-1, columns), high.reshape(-1, columns), 1 - by
    lows, highs = low.max(axis=axis), high.min(axis=axis)
    # A product that was rounded twice (through f32) may lie just outside of its interval.
    if (apart := lows >= highs).any():
        with np.errstate(invalid="ignore"):
            touching = apart & (lows - highs < _TOUCHING * (high - low).min(axis=axis))
        for k in np.flatnonzero(touching).tolist():
            lows[k], highs[k] = _densest(np.take(low, k, 1 - axis), np.take(high, k, 1 - axis))
    return lows, highs


def _densest(low: Values, high: Values) -> tuple[float, float]:
    """Return the bounds of what most of the intervals have in common."""
    low, high = np.sort(low), np.sort(high)
    ended = np.searchsorted(high, low, side="right")
    best = int((np.arange(1, low.size + 1) - ended).argmax())
    return float(low[best]), float(high[ended[best]])


def _sampled_fits(
    new: TensorWords, base: TensorWords, columns: int, axes: Sequence[int], sample: tuple[int, int]
) -> list[tuple[Values, Values]]:
    """Return for each of ``axes`` the bounds of the factors of some lines, by some words of each.

    All axes are looked at in one go: there are few words, and many calls.
    """
    rows, parts = new.words.size // columns, []
    for by in axes:
        few, along = evenly(rows if by == _BY_ROW else columns, sample[0]), sample[1]
        across = evenly(columns if by == _BY_ROW else rows, along)
        parts.append(np.ix_(few, across) if by == _BY_ROW else np.ix_(across, few))
    words, others = (
        np.concatenate([t.words.reshape(rows, columns)[index].ravel() for index in parts])
        for t in (new, base)
    )
    low, high = _factor_bounds(words, others, new.dtype)
    ends = [*accumulate((index[0].size * index[1].size for index in parts), initial=0)]
    return [
        _fit(low[start:end], high[start:end], index[1].size, by)
        for by, index, (start, end) in zip(axes, parts, pairwise(ends), strict=True)
    ]


def _has_factors(new: TensorWords, base: TensorWords, columns: int, by: int) -> bool:
    """Return whether most lines of a large sample have a factor, and not all of them 1."""
    [(low, high)] = _sampled_fits(new, base, columns, [by], _MANY)
    changed = (low >= 1) | (high <= 1)
    return bool((low < high).mean() > 0.8 and (changed & (low < high)).any())


def _find(new: TensorWords, base: TensorWords, columns: int) -> tuple[int, Values] | None:
    """Find the axis of the lines that have factors, and the factors; None if they are not worth storing."""
    rows = new.words.size // columns
    axes = [by for by, length in ((_BY_ROW, columns), (_BY_COLUMN, rows)) if length >= 8]
    few = _sampled_fits(new, base, columns, axes, _FEW) if axes else []
    for by, (low, high) in zip(axes, few, strict=True):
        # In noise no line has a factor; where half of them do it is worth a closer look.
        if np.count_nonzero(low < high) > 0.5 * low.size and _has_factors(new, base, columns, by):
            bounds = _factor_bounds(new.words, base.words, new.dtype)
            return by, simplest(*_fit(*bounds, columns, by))
    return None


def encode(new: TensorWords, base: TensorWords, ranges: Sequence[Range]) -> Encoded | None:
    """Encode the chunks ``ranges``; None when a sample has no common factors."""
    target = Target(new.dtype, new.shape)
    if not fits(target, base):
        return None
    columns = target.row_words
    found = _find(new, base, columns)
    return encode_factors(new, base, ranges, *found) if found else None


def encode_factors(
    new: TensorWords, base: TensorWords, ranges: Sequence[Range], by: int, factors: Values
) -> Encoded:
    """Encode with given factors: ``by`` 0 for one a row, 1 for one a column (of the 2-d view)."""
    columns = Target(new.dtype, new.shape).row_words
    chunks = []
    for start, stop in ranges:
        predicted = _predict(base.read(start, stop), new.dtype, by, factors, columns, start)
        chunks.append(residual.encode(new.read(start, stop), predicted, new.dtype, columns))
    shared = bytes([by]) + dense.encode_words(factors.view(np.uint64), True)
    return Encoded(NAME, shared, tuple(chunks))


@dataclass(frozen=True)
class _Decoder:
    target: Target
    base: Base
    by: int
    factors: Values

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> Words:
        """Return the words of one chunk."""
        t = self.target
        base = self.base.read(start, stop)
        predicted = _predict(base, t.dtype, self.by, self.factors, t.row_words, start)
        return residual.decode(payload, predicted, t.dtype)


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> _Decoder:
    """Check and decode the factors, and get ready to decode chunks of ``target``."""
    if not shared or not fits(target, base) or shared[0] not in (_BY_ROW, _BY_COLUMN):
        raise CodecError("a scaled layer does not fit its base")
    count = target.rows if shared[0] == _BY_ROW else target.row_words
    words = dense.decode_words(memoryview(shared)[1:], 8, count, True)
    return _Decoder(target, base, shared[0], words.astype(word_dtype("f64")).view(np.float64))
