"""``steps/1``: a chunk as a small step from the base: the words that differ, and by how much.

The base has the same dtype and the same number of words.  There are no shared bytes.  Format of
a chunk of ``n`` words, little-endian::

    u8       0: the chunk equals the base, and ends here
             1: an encoded step follows
    u16, u8 a, u8 f, u32: the head of a residual section (theta.codecs.residual)
    u8       c: 1 if the differences have the same contexts as the places, 0 if their classes alone
    u32      the number of words that differ (1 to n)
    u32      w, the number of 32-bit words of the places
    2 x u64  the states of the decoder of the places
    section  (theta.codecs.planes) of two planes: the level of each block, or no bytes if a is 1;
             a byte for each context, in order
    w x u32  the places (theta_native.gaps.events)
    entropy section (theta.codecs.entropy) of the differences of these words, in order

Contexts are those of a residual section.  The hazard of the words of a context with rate ``r``, 0 to 72,
is ``2**(r / 4)``, rounded to the nearest integer.  The byte of a context is its rate less, modulo 256,
that of the context before it with the same class and level; if it is the first of these, that of the first
with the same level of the class before; in class 0, of the level before; 0 at the very first.

The differences are zigzagged as those of a residual section, less 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import entropy, planes, residual
from theta.codecs.base import Base, Encoded, Range, Target, TensorWords
from theta.codecs.delta import fits
from theta.codecs.residual import CLASSES, ContextLayout
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]
    Rates = NDArray[np.uint8]
    Counts = NDArray[np.float64]

NAME: Final = "steps/1"
_HEAD: Final = struct.Struct("<BHBBIBII2Q")
_SAME: Final = b"\0"
_CODED: Final = 1
_LAST_RATE: Final = 72
_A_RATE: Final = 3.0
"""The bits, about, of the rate of a context."""
_WORTH_A_RATE: Final = 5.0
"""The bits that a rate of its own must save of a context."""
_BY_CHANCE: Final = 0.1
"""The words with, and without, a difference that are added to those of a context: no rate is sure to be 0."""


# -- rates ----------------------------------------------------------------------------------


def _hazards(rates: Rates) -> NDArray[np.uint32]:
    """Return the hazard of each rate."""
    steps = np.rint(2.0 ** (np.arange(_LAST_RATE + 1) / 4)).astype(np.uint32)
    found: NDArray[np.uint32] = steps[rates]
    return found


def _nearest_rates(changed: Counts, total: Counts) -> Rates:
    """Return the rate of contexts with so many words that differ, of so many."""
    left = (total - changed + _BY_CHANCE) / (total + 2 * _BY_CHANCE)
    exact = 4 * np.log2(np.maximum(-np.log(left) * kernels.events.UNIT, 1.0))
    rates: Rates = np.minimum(np.rint(exact), _LAST_RATE).astype(np.uint8)
    return rates


def _bits(changed: Counts, total: Counts, rates: Rates) -> Counts:
    """Return the bits of the places in each context."""
    hazards = _hazards(rates) / kernels.events.UNIT
    found: Counts = (total - changed) * hazards / np.log(2) - changed * np.log2(-np.expm1(-hazards))
    return found


def _chosen_rates(changed: Counts, total: Counts) -> Rates:
    """Return a rate for each class, level and fine class, whose own is given only where it is worth it."""
    both = changed.sum(axis=2, keepdims=True), total.sum(axis=2, keepdims=True)
    own, common = _nearest_rates(changed, total), _nearest_rates(*both)
    for kind in range(1, CLASSES):  # a class that does not occur is like the one before
        common[kind] = np.where(both[1][kind] > 0, common[kind], common[kind - 1])
    saved = _bits(changed, total, np.broadcast_to(common, own.shape)) - _bits(changed, total, own)
    rates: Rates = np.where(saved > _WORTH_A_RATE, own, common).astype(np.uint8)
    return rates


def _less_predicted(rates: Rates) -> Rates:
    """Return the bytes of rates by class, level and fine class."""
    found = rates.copy()
    found[:, :, 1:] -= rates[:, :, :-1]
    found[1:, :, 0] -= rates[:-1, :, 0]
    found[0, 1:, 0] -= rates[0, :-1, 0]
    return found


def _with_predicted(found: Rates) -> Rates:
    """Do the inverse of :func:`_less_predicted`, in place."""
    found[0, :, 0] = np.cumsum(found[0, :, 0], dtype=np.uint8)
    found[:, :, 0] = np.cumsum(found[:, :, 0], axis=0, dtype=np.uint8)
    rates: Rates = np.cumsum(found, axis=2, dtype=np.uint8)
    return rates


# -- encoding -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """The words of a chunk that differ, and counts of them by class, level and fine class.

    ``contexts`` are those with all parts; ``kinds`` has the one of ``layout`` for each.
    """

    layout: ContextLayout
    contexts: NDArray[np.uint16]
    kinds: NDArray[np.int64]
    places: NDArray[np.uint32]
    changed: Counts
    total: Counts

    @classmethod
    def of(cls, values: Words, base: Words, dtype: str, layout: ContextLayout) -> _Found:
        """Count the values that are not 0."""
        shape = CLASSES, layout.level_count, layout.fine_count(dtype)
        contexts, places = layout.contexts(base, dtype), kernels.tokens.places_of(values)
        count = layout.count * shape[2]
        total = kernels.contexts.histogram(contexts, count).astype(np.float64)
        changed = np.bincount(contexts[places], minlength=count).astype(np.float64)
        return cls(layout, contexts, np.arange(count), places, changed.reshape(shape), total.reshape(shape))

    def without(self, use_levels: bool, use_fine: bool) -> _Found:
        """Return what there is when levels or fine classes are not looked at."""
        layout, axes = self.layout, _unused(use_levels, use_fine)
        if not use_levels and layout.level_count > 1:
            layout = replace(layout, levels=np.zeros_like(layout.levels), level_count=1)
        changed, total = (each.sum(axis=axes, keepdims=True) for each in (self.changed, self.total))
        _, level_count, fine_count = self.changed.shape
        kinds = residual.kinds_of(level_count, fine_count, use_levels, use_fine)
        return _Found(replace(layout, use_fine=use_fine), self.contexts, kinds, self.places, changed, total)

    def ways(self) -> Iterator[tuple[bool, bool]]:
        """Yield whether to use levels and fine classes, in all ways."""
        for use_levels in (True, False) if self.layout.level_count > 1 else (False,):
            for use_fine in (True, False) if self.changed.shape[2] > 1 else (False,):
                yield use_levels, use_fine

    def bits(self, use_levels: bool, use_fine: bool) -> float:
        """Return about the bits of the places and of the rates."""
        axes = _unused(use_levels, use_fine)
        changed, total = self.changed.sum(axis=axes), self.total.sum(axis=axes)
        some = total > 0
        changed, total = changed[some], total[some]
        share = np.clip(changed / total, 1e-9, 1 - 1e-9)
        return float(
            _A_RATE * changed.size - (changed * np.log2(share) + (total - changed) * np.log2(1 - share)).sum()
        )


def _unused(use_levels: bool, use_fine: bool) -> tuple[int, ...]:
    """Return the axes of counts that are not looked at."""
    return (() if use_levels else (1,)) + (() if use_fine else (2,))


def _differences(found: _Found, values: Words) -> tuple[bool, bytes]:
    """Return whether differences have all contexts, and their section."""
    rest = values[found.places] - values.dtype.type(1)
    contexts = found.kinds.astype(np.uint16)[found.contexts[found.places]]
    count, fine = found.changed.size, found.changed[0].size
    kinds = np.arange(count) // fine
    best, tables, least, is_all = None, None, float("inf"), False
    for counted in entropy.by_all_rules(rest, contexts, count):
        ways = [(True, counted.listed)] if fine > 1 else []
        ways.append((False, kernels.clusters.Listed(counted.grouped(kinds)) if fine > 1 else counted.listed))
        for all_parts, listed in ways:
            bits = entropy.estimate(listed) + counted.raw_bits
            if bits < least:
                best, tables, least, is_all = counted, listed, bits, all_parts
    assert best is not None
    assert tables is not None
    if not is_all:
        contexts, count = kinds.astype(np.uint16)[contexts], CLASSES
    keys = kernels.contexts.ContextKeys.of(contexts, count)
    return is_all, entropy.encode(rest, keys, best, entropy.plan(tables)).data


def _encode_chunk(words: Words, base: Words, dtype: str, row_words: int) -> bytes:
    values = kernels.differences.difference(words, base, residual.is_float(dtype))
    if not values.any():
        return _SAME
    block = row_words if 32 <= row_words <= 1 << 14 else residual.DEFAULT_BLOCK
    layout = residual.layout_of(values, base, dtype, block, None)
    everything = _Found.of(values, base, dtype, layout)
    level_bits = 8.0 * len(planes.encode_section([layout.levels]))
    way = min(everything.ways(), key=lambda way: everything.bits(*way) + level_bits * way[0])
    found = everything.without(*way)
    rates = _chosen_rates(found.changed, found.total)
    hazards = _hazards(rates.reshape(-1))
    total = int(found.total.reshape(-1) @ hazards)
    states, stream = kernels.events.encode(found.contexts, hazards[found.kinds], total, found.places)
    is_all, differences = _differences(found, values)
    used = found.layout
    head = (used.top, used.level_count, used.use_fine, block, is_all, found.places.size, stream.size)
    levels = used.levels if used.level_count > 1 else used.levels[:0]
    return b"".join(
        (
            _HEAD.pack(_CODED, *head, *states.tolist()),
            planes.encode_section([levels, _less_predicted(rates).reshape(-1)]),
            stream.astype("<u4", copy=False).data,
            differences,
        )
    )


def encode(new: TensorWords, base: TensorWords, ranges: Sequence[Range]) -> Encoded | None:
    """Encode the chunks ``ranges``; None when the base does not fit."""
    target = Target(new.dtype, new.shape)
    if not fits(target, base):
        return None
    row = target.row_words
    chunks = (_encode_chunk(new.read(*r), base.read(*r), new.dtype, row) for r in ranges)
    return Encoded(NAME, None, tuple(chunks))


# -- decoding -------------------------------------------------------------------------------


def _layout(view: memoryview, base: Words, dtype: str) -> tuple[ContextLayout, Rates, int]:
    """Return the contexts of a chunk, the rate of each, and the position behind them."""
    _, top, level_count, use_fine, block, *_ = _HEAD.unpack_from(view)
    if not (1 <= level_count <= residual.MAX_LEVELS and use_fine <= 1 and block >= 1):
        raise CodecError("an encoded step has an impossible header")
    blocks = -(-base.size // block)
    levels = np.zeros(blocks if level_count > 1 else 0, np.uint8)
    layout = ContextLayout(top, levels, level_count, block, bool(use_fine))
    shape = CLASSES, level_count, layout.fine_count(dtype)
    rates = np.empty(layout.count * shape[2], np.uint8)
    position = planes.decode_section(view, _HEAD.size, [levels, rates])
    rates = _with_predicted(rates.reshape(shape)).reshape(-1)
    if int(rates.max()) > _LAST_RATE or (levels.size and int(levels.max()) >= level_count):
        raise CodecError("an encoded step has an impossible rate or level")
    return replace(layout, levels=levels if levels.size else np.zeros(blocks, np.uint8)), rates, position


def _decode(view: memoryview, base: Words, dtype: str) -> Words:
    if len(view) < _HEAD.size or view[0] != _CODED or base.size == 0:
        raise CodecError("an encoded step has an unknown form")
    *_, all_parts, count, size, first, second = _HEAD.unpack_from(view)
    layout, rates, position = _layout(view, base, dtype)
    if all_parts > 1 or not 1 <= count <= base.size or 4 * size > len(view) - position:
        raise CodecError("an encoded step has an impossible header")
    stream = np.frombuffer(view, "<u4", size, position)
    words = base.copy()  # at once: kernels would be compiled anew for keys that may not be written to
    keys, states = layout.keys(words, dtype), np.array([first, second], np.uint64)
    found = kernels.events.decode(states, stream, keys, _hazards(rates), count)
    if found is None:
        raise CodecError("an encoded step is damaged")
    places, numbers = found
    parts = 1 if all_parts else rates.size // CLASSES
    contexts = (keys.numbers.reshape(-1) // np.uint16(parts))[numbers]
    keys = kernels.contexts.ContextKeys.of(contexts, rates.size // parts)
    rest, end = entropy.decode(view, position + 4 * size, keys, base.dtype)
    if end != len(view):
        raise CodecError("an encoded step has bytes behind its end")
    kernels.differences.step(words, places, rest, residual.is_float(dtype))
    return words


@dataclass(frozen=True)
class _Decoder:
    target: Target
    base: Base

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> Words:
        """Return the words of one chunk, which may be those of the base."""
        view, base = memoryview(payload), self.base.read(start, stop)
        return base if bytes(view[:2]) == _SAME else _decode(view, base, self.target.dtype)


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> _Decoder:
    """Get ready to decode chunks of ``target``."""
    if shared or not fits(target, base):
        raise CodecError("a step does not fit its base")
    return _Decoder(target, base)
