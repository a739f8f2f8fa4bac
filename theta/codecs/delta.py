"""``delta/1``: a chunk as differences to the same words of the base.

The base has the same dtype and the same number of words.  There are no shared bytes; a chunk is
one residual section (theta.codecs.residual) whose prediction is the base's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta.codecs import residual
from theta.codecs.base import Base, Encoded, Range, Target, TensorWords
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME: Final = "delta/1"


def fits(target: Target, base: Base) -> bool:
    """Return whether ``base`` has the dtype and the number of words of ``target``."""
    if base.dtype != target.dtype:
        return False
    return base.shape == target.shape or Target(base.dtype, base.shape).words == target.words


def encode(new: TensorWords, base: TensorWords, ranges: Sequence[Range]) -> Encoded | None:
    """Encode the chunks ``ranges``; None when the base does not fit."""
    target = Target(new.dtype, new.shape)
    if not fits(target, base):
        return None
    row = target.row_words
    chunks = (residual.encode(new.read(*r), base.read(*r), new.dtype, row) for r in ranges)
    return Encoded(NAME, None, tuple(chunks))


@dataclass(frozen=True)
class _Decoder:
    target: Target
    base: Base

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> NDArray[Any]:
        """Return the words of one chunk."""
        return residual.decode(payload, self.base.read(start, stop), self.target.dtype)


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> _Decoder:
    """Get ready to decode chunks of ``target``."""
    if shared or not fits(target, base):
        raise CodecError("a delta layer does not fit its base")
    return _Decoder(target, base)
