"""``sparse/1``: a chunk as the base's words except for a few that are new altogether.

The base has the same dtype and the same number of words.  There are no shared bytes.  Format of
a chunk of ``n`` words::

    u32      the number of words that are new, little-endian (not 0)
    u32      the length of the dense chunk
    bytes    a dense chunk (theta.codecs.dense) of the new words, in order
    entropy section of n values (theta.codecs.entropy): 1 where the word is new, else 0

The context of a value is the class of the base's word: 255 (for f64 2047, for words that are no
floats 64) minus its magnitude (``theta_native.differences``), less the smallest such number in the
chunk, at most 23.  Where the new words are near the old ones, ``delta/1`` is smaller.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import dense, entropy, residual
from theta.codecs.base import Base, Encoded, Range, Target, TensorWords
from theta.codecs.delta import fits
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]

NAME: Final = "sparse/1"
_HEAD: Final = struct.Struct("<II")


def _contexts(base: Words, dtype: str) -> NDArray[np.uint16]:
    found = residual.magnitudes(base, dtype)
    return kernels.contexts.fold(found, int(found.max()), residual.CLASSES).astype(np.uint16)


def _encode_chunk(words: Words, base: Words, dtype: str) -> bytes:
    changed = words != base
    contexts = _contexts(base, dtype)
    values = changed.view(np.uint8)
    coding = entropy.choose(values, contexts, (residual.CLASSES, 1, 1), ((0, 0),))
    new = dense.encode_words(words[changed], dense.is_rotated(dtype))
    keys = kernels.contexts.ContextKeys.of(contexts, residual.CLASSES)
    mask = entropy.encode(values, keys, coding).data
    return _HEAD.pack(int(changed.sum()), len(new)) + new + mask


def encode(new: TensorWords, base: TensorWords, ranges: Sequence[Range]) -> Encoded | None:
    """Encode the chunks ``ranges``; None when the base does not fit or a chunk is unchanged."""
    target = Target(new.dtype, new.shape)
    if not fits(target, base) or any(np.array_equal(new.read(*r), base.read(*r)) for r in ranges):
        return None
    chunks = (_encode_chunk(new.read(*r), base.read(*r), new.dtype) for r in ranges)
    return Encoded(NAME, None, tuple(chunks))


@dataclass(frozen=True)
class _Decoder:
    target: Target
    base: Base

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> Words:
        """Return the words of one chunk."""
        view, dtype = memoryview(payload), self.target.dtype
        if len(view) < _HEAD.size or stop <= start:
            raise CodecError("a sparse chunk is cut short")
        count, size = _HEAD.unpack_from(view)
        if not 0 < count <= stop - start or size > len(view) - _HEAD.size:
            raise CodecError("a sparse chunk is damaged")
        words = self.base.read(start, stop).copy()
        keys = kernels.contexts.ContextKeys.of(_contexts(words, dtype), residual.CLASSES)
        mask, end = entropy.decode(view, _HEAD.size + size, keys, np.dtype(np.uint8))
        if end != len(view) or int(mask.max()) > 1 or int(mask.sum(dtype=np.int64)) != count:
            raise CodecError("a sparse chunk is damaged")
        new = view[_HEAD.size : _HEAD.size + size]
        words[mask == 1] = dense.decode_words(new, words.dtype.itemsize, count, dense.is_rotated(dtype))
        return words


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> _Decoder:
    """Get ready to decode chunks of ``target``."""
    if shared or not fits(target, base):
        raise CodecError("a sparse layer does not fit its base")
    return _Decoder(target, base)
