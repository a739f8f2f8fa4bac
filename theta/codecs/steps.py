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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import residual
from theta.codecs.base import Base, Encoded, Range, Target, TensorWords
from theta.codecs.delta import fits
from theta.codecs.moves import context_rates
from theta.codecs.moves.context_rates import ContextCounts
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


def _decode(view: memoryview, base: Words, dtype: str) -> Words:
    if len(view) < _HEAD.size or view[0] != _CODED or base.size == 0:
        raise CodecError("an encoded step has an unknown form")
    _, *head, all_parts, count, size, first, second = _HEAD.unpack_from(view)
    read = context_rates.ContextHead(*head).read
    layout, rates, position = read(view, _HEAD.size, base.size, dtype, context_rates.LAST_RATE)
    if all_parts > 1 or not 1 <= count <= base.size or 4 * size > len(view) - position:
        raise CodecError("an encoded step has an impossible header")
    stream = np.frombuffer(view, "<u4", size, position)
    words = base.copy()  # at once: kernels would be compiled anew for keys that may not be written to
    keys, states = layout.keys(words, dtype), np.array([first, second], np.uint64)
    found = kernels.events.decode(states, stream, keys, context_rates.hazards(rates), count)
    if found is None:
        raise CodecError("an encoded step is damaged")
    changed = context_rates.ChangedWords(words, keys, *found, residual.is_float(dtype))
    context_rates.apply_differences(view, position + 4 * size, changed, bool(all_parts), rates.size)
    return words


def decode(payload: memoryview, base: Words, dtype: str) -> Words:
    """Return the words of the chunk ``payload``, which may be ``base``, the same words of the base.

    Raises :class:`~theta.errors.CodecError` for anything malformed.
    """
    return base if bytes(payload[:2]) == _SAME else _decode(payload, base, dtype)


@dataclass(frozen=True)
class _Decoder:
    target: Target
    base: Base

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> Words:
        """Return the words of one chunk, which may be those of the base."""
        return decode(memoryview(payload), self.base.read(start, stop), self.target.dtype)


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> _Decoder:
    """Get ready to decode chunks of ``target``."""
    if shared or not fits(target, base):
        raise CodecError("a step does not fit its base")
    return _Decoder(target, base)
