"""The difference of a chunk to a prediction of it: what all codecs of layers end in.

Format of a *residual section*, for ``n`` words of which the decoder has a prediction::

    u8       0: the chunk equals its prediction, and the section ends here
             1: an encoded difference follows
    u16      the magnitude that class 0 begins with
    u8       a, the number of activity levels (1 to 8)
    u8       f: 1 if fine classes are used as contexts, else 0
    u32      the number of words of a block (at least 1)
    section  (theta.codecs.planes) of one plane: the level of each block, or no bytes if a is 1
    entropy section of n values (theta.codecs.entropy)

The values are zigzagged differences of order-preserving integers (``theta_native.differences``).
Context of a word: ``(class * a + level) * fine classes + fine class``, where

* class: the magnitude of the predicted word (``theta_native.differences``) subtracted from the
  magnitude above, cut to 0 .. 23;
* level: how active the block is, as the encoder found it; 0 if a is 1;
* fine class: the top bits of the predicted mantissa (3, so 8 fine classes; 4 and 16 for words of 32 or
  64 bits), unless the codec says something better (16 then).  There is one fine class, 0, if f is 0
  and for words that are no floats or whose mantissa is shorter (f8_e5m2, f8_e5m2fnuz).

The context of the predicted exponent is what lets small updates cost little: it says how many
units in the last place an update of typical size has.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import entropy, planes
from theta.codecs.base import word_size
from theta.dtypes import DTYPES
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta_native.coded.choices import CodingChoice
    from theta_native.contexts import ContextKeys

    Words = NDArray[Any]

_HEAD: Final = struct.Struct("<HBBI")
_SAME: Final = b"\0"
_CODED: Final = 1
_NO_LEVELS: Final = bytes(5)
"""The section of a plane of no bytes."""
CLASSES: Final = 24
_LEVELS: Final = 6
MAX_LEVELS: Final = 8
DEFAULT_BLOCK: Final = 512
_EVERY: Final = (8, 4)
"""The steps between the words by which the activity of a block is measured, if it has plenty."""
_PLENTY: Final = 1 << 16
"""The words for each of a step that are plenty: of a chunk, and of a block."""
_PLENTY_A_BLOCK: Final = 128
_LEVELED: Final = 512
"""The number of blocks, about, that the levels are found by."""
_HARDLY_MORE: Final = 1.2
"""The variance of the activity of blocks, over that of chance, below which levels save nothing."""
_WEIGHT: Final = 8
"""The step between the blocks by which contexts and tables are chosen, if there are plenty."""
_LEAST_BLOCKS: Final = 16
_LEAST_VALUES: Final = 1 << 16
"""The least number of blocks and of values of a sample."""
_FIRST: Final = 1 << 12
"""The number of words that are compared before all are."""
_HARDLY_ANY: Final = 0.004
"""The share of a size below which what tables take is not worth a search for fewer of them."""
_MORE: Final = 0.03
"""The share by which a size may be more than a sample predicts, before all blocks are planned on."""
_LESS: Final = 0.08
"""The share for less: predictions are a bit large where few bits are stored, even from all blocks."""

_EXPONENT_BITS: Final = {
    "f16": 5,
    "bf16": 8,
    "f32": 8,
    "f64": 11,
    "c64": 8,
    "f8_e4m3": 4,
    "f8_e5m2": 5,
    "f8_e4m3fnuz": 4,
    "f8_e5m2fnuz": 5,
}


_KEYED: Final = ("bf16", "f16")


@dataclass(frozen=True)
class Fine:
    """A fine class below ``count`` (1 to 16) for each word."""

    classes: NDArray[np.uint8]
    count: int


def is_float(dtype: str) -> bool:
    """Return whether words of ``dtype`` have a sign and an exponent (e8m0 has neither)."""
    return dtype in _EXPONENT_BITS


def magnitudes(words: Words, dtype: str) -> NDArray[np.uint16]:
    """Return exponent fields, or lengths in bits, of ``words``."""
    if is_float(dtype):
        return kernels.differences.exponents(words, _EXPONENT_BITS[dtype])
    return kernels.differences.bit_lengths(words, DTYPES[dtype].kind == "int")


@dataclass(frozen=True)
class ContextLayout:
    """The parts of the contexts of a chunk: the first class, the levels of its blocks, fine classes.

    ``given`` are fine classes that are not those of the mantissas.
    """

    top: int
    levels: NDArray[np.uint8]
    level_count: int
    block: int
    use_fine: bool = True
    given: Fine | None = None

    def fine_count(self, dtype: str) -> int:
        """Return the number of fine classes."""
        if not self.use_fine:
            return 1
        return self.given.count if self.given else 1 << _fine_bits(dtype)[1]

    @property
    def count(self) -> int:
        """The number of contexts without fine classes."""
        return CLASSES * self.level_count

    def keys(self, predicted: Words, dtype: str) -> ContextKeys:
        """Return the key to the context of each word."""
        # Of floats of 16 bits that is the exponent and the top of the mantissa, as they stand in the word.
        if dtype in _KEYED and self.given is None and (self.block % 4 == 0 or self.levels.size == 1):
            return self._keys_of_floats(predicted, dtype)
        return kernels.contexts.ContextKeys.of(
            self.contexts(predicted, dtype), self.count * self.fine_count(dtype)
        )

    def _keys_of_floats(self, predicted: Words, dtype: str) -> ContextKeys:
        table = _context_numbers(dtype, self.top, self.level_count, self.use_fine)
        blocks = kernels.contexts.Levels(self.levels, self.level_count, self.block)
        count = self.count * self.fine_count(dtype)
        return kernels.contexts.ContextKeys(predicted, _fine_bits(dtype)[0], table, blocks, count)

    def contexts(self, predicted: Words, dtype: str) -> NDArray[np.uint16]:
        """Return the context of each word."""
        levels = kernels.contexts.Levels(self.levels, self.level_count, self.block)
        shift, bits = _fine_bits(dtype) if self.use_fine else (0, 0)
        given = self.given if self.use_fine else None
        if given is None and is_float(dtype):
            width = _EXPONENT_BITS[dtype]
            exponent = word_size(dtype) * 8 - 1 - width, width
            return kernels.contexts.of_floats(predicted, exponent, (shift, bits), self.top, CLASSES, levels)
        classes = kernels.contexts.fold(magnitudes(predicted, dtype), self.top, CLASSES)
        fine = given or Fine(kernels.contexts.fine_bits(predicted, shift, bits), 1 << bits)
        return kernels.contexts.combine(classes, levels, fine.classes, fine.count)


@lru_cache(64)
def _context_numbers(dtype: str, top: int, level_count: int, use_fine: bool) -> NDArray[np.uint16]:
    """Return the context of each level, exponent and top of a mantissa; nobody may write to it.

    It is remembered: for a tensor of some hundred words it takes longer than the words.
    """
    exponents, fine = np.arange(1 << _EXPONENT_BITS[dtype]), np.arange(1 << _fine_bits(dtype)[1])
    classes = np.clip(top - exponents, 0, CLASSES - 1)[:, None]
    levels, fine_count = np.arange(level_count)[:, None, None], fine.size if use_fine else 1
    numbers = (classes * level_count + levels) * fine_count + (fine if use_fine else 0 * fine)
    return np.ascontiguousarray(numbers, np.uint16).reshape(level_count, -1)


@lru_cache
def _fine_bits(dtype: str) -> tuple[int, int]:
    """Return a shift and the bits of the fine class of a mantissa; 0 bits for types that have hardly any."""
    width = word_size(dtype) * 8
    mantissa = width - 1 - _EXPONENT_BITS.get(dtype, width)
    bits = 4 if width > 16 else 3
    return (mantissa - bits, bits) if mantissa >= bits else (0, 0)


def _levels(excess: NDArray[np.float64], chance: float) -> NDArray[np.uint8]:
    """Group blocks by activity (k-means in one dimension, levels in rising order).

    All are in one group when their activities vary hardly more than by ``chance``.
    """
    if excess.var() <= _HARDLY_MORE * chance:
        return np.zeros(excess.size, np.uint8)
    some = np.sort(excess[:: max(excess.size // _LEVELED, 1)])
    before = np.concatenate([[0.0], np.cumsum(some)])
    low, high = float(some[0]), float(some[-1])
    centres = low + (high - low) * (np.arange(_LEVELS) + 0.5) / _LEVELS
    ends = np.array([0, *[some.size] * _LEVELS])
    for _ in range(10):
        ends[1:-1] = np.searchsorted(some, (centres[1:] + centres[:-1]) / 2, side="right")
        counts, sums = ends[1:] - ends[:-1], before[ends[1:]] - before[ends[:-1]]
        centres, old = np.where(counts > 0, sums / np.maximum(counts, 1), centres), centres
        if bool((centres == old).all()):
            break
    labels = np.searchsorted((centres[1:] + centres[:-1]) / 2, excess)
    is_used = np.bincount(labels, minlength=_LEVELS) > 0
    found: NDArray[np.uint8] = (np.cumsum(is_used) - 1).astype(np.uint8)[labels]
    return found


@lru_cache(64)
def kinds_of(level_count: int, fine_count: int, use_levels: bool, use_fine: bool) -> NDArray[np.int64]:
    """Return, for each context with all of its parts, the number of the one without the unused parts.

    Nobody may write to it: it is remembered.
    """
    shape = (CLASSES, level_count if use_levels else 1, fine_count if use_fine else 1)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    found = np.broadcast_to(numbers, (CLASSES, level_count, fine_count)).reshape(-1)
    found.flags.writeable = False
    return found


@dataclass(frozen=True)
class _Sample:
    """Blocks of a chunk, each of which stands for ``weight`` of them."""

    values: Words
    predicted: Words
    layout: ContextLayout
    weight: int

    @classmethod
    def of(cls, values: Words, predicted: Words, layout: ContextLayout, weight: int) -> _Sample:
        """Return blocks at equal distances, or all if there are few."""
        blocks = values.size // layout.block
        weight = min(weight, blocks // _LEAST_BLOCKS, values.size // _LEAST_VALUES)
        if weight < 2:
            return cls(values, predicted, layout, 1)

        def part(words: Words) -> Words:
            return words[: blocks * layout.block].reshape(blocks, -1)[weight // 2 :: weight].reshape(-1)

        given = layout.given and Fine(part(layout.given.classes), layout.given.count)
        levels = np.ascontiguousarray(layout.levels[:blocks][weight // 2 :: weight])
        return cls(part(values), part(predicted), replace(layout, levels=levels, given=given), weight)


def _coding(sample: _Sample, dtype: str, level_bits: float) -> CodingChoice:
    """Return the cheapest token rule with the cheapest contexts and tables."""
    layout = sample.layout
    shape = CLASSES, layout.level_count, layout.fine_count(dtype)
    contexts = layout.contexts(sample.predicted, dtype)
    values, weight = sample.values, sample.weight
    return entropy.choose(
        values, contexts, shape, weight=weight, level_bits=level_bits / weight, negligible=_HARDLY_ANY
    )


def encode(words: Words, predicted: Words, dtype: str, row_words: int = 0, fine: Fine | None = None) -> bytes:
    """Return the residual section of ``words`` against ``predicted`` (same dtype and size).

    ``row_words`` is the length of a row (0: none), whose activity is taken to be of one kind.
    """
    values = kernels.differences.difference(words, predicted, is_float(dtype))
    if not (values[:_FIRST].any() or values.any()):
        return _SAME
    block = row_words if 32 <= row_words <= 1 << 14 else DEFAULT_BLOCK
    layout = layout_of(values, predicted, dtype, block, fine)
    keys = layout.keys(predicted, dtype)
    levels = planes.encode_section([layout.levels])
    for weight in (_WEIGHT, 1):
        sample = _Sample.of(values, predicted, layout, weight)
        used = _coding(sample, dtype, 8.0 * len(levels))
        kinds = kinds_of(layout.level_count, layout.fine_count(dtype), used.use_levels, used.use_fine)
        section = entropy.encode(values, keys.grouped(kinds), used)
        expected = sample.weight * used.bits
        if sample.weight == 1 or -_LESS * expected <= section.bits - expected <= _MORE * expected:
            break
    return b"".join(
        (
            bytes([_CODED]),
            _HEAD.pack(layout.top, layout.level_count if used.use_levels else 1, used.use_fine, block),
            levels if used.use_levels else _NO_LEVELS,
            section.data,
        )
    )


def layout_of(values: Words, predicted: Words, dtype: str, block: int, fine: Fine | None) -> ContextLayout:
    """Return the contexts to try."""
    plenty = min(values.size // _PLENTY, block // _PLENTY_A_BLOCK)
    every = next((n for n in _EVERY if n <= plenty and block % n == 0), 1)
    part = np.ascontiguousarray(values[::every])
    found = magnitudes(np.ascontiguousarray(predicted[::every]), dtype)
    top, excess, chance = kernels.contexts.activity(part, found, CLASSES, block // every)
    levels = _levels(excess, chance)
    return ContextLayout(top, levels, int(levels.max()) + 1, block, given=fine)


def read_levels(blob: memoryview, position: int, count: int, blocks: int) -> tuple[NDArray[np.uint8], int]:
    """Return the level of each block, and the position behind them."""
    if count == 1 and blob[position : position + len(_NO_LEVELS)] == _NO_LEVELS:
        return np.zeros(blocks, np.uint8), position + len(_NO_LEVELS)
    levels = np.zeros(blocks if count > 1 else 0, np.uint8)
    position = planes.decode_section(blob, position, [levels])
    if levels.size and int(levels.max()) >= count:
        raise CodecError("an encoded chunk has an impossible activity level")
    return levels if count > 1 else np.zeros(blocks, np.uint8), position


def decode(
    blob: bytes | memoryview, predicted: Words, dtype: str, fine: Fine | None = None, start: int = 0
) -> Words:
    """Decode the residual section against ``predicted`` that is all of ``blob`` from ``start``.

    Raises :class:`~theta.errors.CodecError` for anything malformed.  The result may be
    ``predicted`` itself.
    """
    view = memoryview(blob)[start:]
    if len(view) == 1 and bytes(view) == _SAME:
        return predicted
    if len(view) < 1 + _HEAD.size or view[0] != _CODED or predicted.size == 0:
        raise CodecError("an encoded chunk has an unknown form")
    top, level_count, use_fine, block = _HEAD.unpack_from(view, 1)
    if not (1 <= level_count <= MAX_LEVELS and use_fine <= 1 and block >= 1):
        raise CodecError("an encoded chunk has an impossible header")
    levels, position = read_levels(view, 1 + _HEAD.size, level_count, -(-predicted.size // block))
    layout = ContextLayout(top, levels, level_count, block, bool(use_fine), fine)
    values, position = entropy.decode(view, position, layout.keys(predicted, dtype), predicted.dtype)
    if position != len(view):
        raise CodecError("an encoded chunk has bytes behind its end")
    return kernels.differences.restore(values, predicted, is_float(dtype))
