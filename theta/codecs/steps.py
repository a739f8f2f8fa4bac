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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import entropy, residual
from theta.codecs.base import Base, Encoded, OnBase, Range, Target, TensorWords, same
from theta.codecs.delta import fits
from theta.codecs.moves import context_rates
from theta.codecs.moves.context_rates import ContextCounts, ReadParts, StepDecoder
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]

NAME: Final = "steps/1"
_HEAD: Final = struct.Struct("<BHBBIBII2Q")
_SAME: Final = b"\0"
_CODED: Final = 1


# -- encoding -------------------------------------------------------------------------------


def _encode_chunk(words: Words, base: Words, dtype: str, row_words: int) -> bytes:
    values = kernels.differences.difference(words, base, residual.is_float(dtype))
    if not values.any():
        return _SAME
    block = row_words if 32 <= row_words <= 1 << 14 else residual.DEFAULT_BLOCK
    layout = residual.layout_of(values, base, dtype, block, None)
    places = kernels.tokens.places_of(values)
    contexts, count = layout.contexts(base, dtype), layout.count * layout.fine_count(dtype)
    total = kernels.contexts.histogram(contexts, count).astype(np.float64)
    changed = np.bincount(contexts[places], minlength=count).astype(np.float64)
    found = ContextCounts.of(layout, dtype, contexts, changed, total).with_best_contexts()
    rates = context_rates.chosen_rates(found.changed, found.total)
    hazards = context_rates.hazards(rates.reshape(-1))
    sum_of_all = int(found.total.reshape(-1) @ hazards)
    states, stream = kernels.events.encode(contexts, hazards[found.kinds], sum_of_all, places)
    is_all, differences = context_rates.differences(found, values, places)
    used = found.layout
    head = (used.top, used.level_count, used.use_fine, block, is_all, places.size, stream.size)
    return b"".join(
        (
            _HEAD.pack(_CODED, *head, *states.tolist()),
            context_rates.section(used.levels, used.level_count, rates),
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


class _ReadStep(ReadParts):
    """An encoded step whose tables were read; ``numbers`` are rates."""

    @classmethod
    def of(cls, view: memoryview, size: int, dtype: str) -> _ReadStep:
        if len(view) < _HEAD.size or view[0] != _CODED or size == 0:
            raise CodecError("an encoded step has an unknown form")
        _, *head, all_parts, count, length, first, second = _HEAD.unpack_from(view)
        read = context_rates.ContextHead(*head).read
        layout, rates, position = read(view, _HEAD.size, size, dtype, context_rates.LAST_RATE)
        if all_parts > 1 or not 1 <= count <= size:
            raise CodecError("an encoded step has an impossible header")
        stream, end = context_rates.stored_stream(view, position, length)
        states, section = np.array([first, second], np.uint64), entropy.stored(view, end)
        return cls(dtype, size, layout, rates, states, stream, count, bool(all_parts), section)

    def __call__(self, base: Words) -> Words:
        if base.size != self.size:
            raise CodecError("a step does not fit its base")
        seen = base.view()
        seen.flags.writeable = False  # always: kernels would be compiled anew for other ones
        keys, hazards = self.layout.keys(seen, self.dtype), context_rates.hazards(self.numbers)
        found = kernels.events.decode(self.states, self.stream, keys, hazards, self.count)
        if found is None:
            raise CodecError("an encoded step is damaged")
        words = base.copy()  # only now: its bytes are in the nearest caches
        changed = kernels.sections.ChangedWords(words, keys, *found, residual.is_float(self.dtype))
        self.change(changed)
        return words


def ready(payload: memoryview, size: int, dtype: str) -> OnBase:
    """Read the tables of the chunk ``payload``, whose base has ``size`` words.

    It, and what it returns, raise :class:`~theta.errors.CodecError` for anything malformed.
    """
    return same if bytes(payload[:2]) == _SAME else _ReadStep.of(payload, size, dtype)


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> StepDecoder:
    """Get ready to decode chunks of ``target``."""
    if shared or not fits(target, base):
        raise CodecError("a step does not fit its base")
    return StepDecoder(ready, target, base)
