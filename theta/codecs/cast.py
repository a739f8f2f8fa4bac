"""``cast/1``: a chunk as the base's values in another dtype.

The base has the same number of words and another dtype, which converts to the new one:

* float (f16, bf16, f32, f64, f8_e4m3, f8_e5m2) to float: through the exact value, rounded once to
  nearest, ties to even; NaNs become the positive quiet NaN without payload; what is too large
  becomes infinity (for f8_e4m3: NaN) of its sign;
* integer or bool to integer or bool: the value modulo two to the number of bits (bool has 8).

There are no shared bytes; a chunk is one residual section (theta.codecs.residual) whose
prediction is the converted base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta.codecs import arith, residual
from theta.codecs.base import Base, Encoded, Range, Target, TensorWords, word_dtype, word_size
from theta.dtypes import DTYPES
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]

NAME: Final = "cast/1"
_WHOLE: Final = ("int", "uint", "bool")


def fits(target: Target, base: Base) -> bool:
    """Return whether the words of ``base`` convert to those of ``target``, one to one."""
    if base.dtype == target.dtype or Target(base.dtype, base.shape).words != target.words:
        return False
    if arith.has_values(base.dtype) and arith.has_values(target.dtype):
        return True
    return DTYPES[base.dtype].kind in _WHOLE and DTYPES[target.dtype].kind in _WHOLE


def _convert(words: Words, source: str, dtype: str) -> Words:
    if arith.has_values(dtype):
        return arith.to_words(arith.to_values(words, source), dtype)
    kind = "i" if DTYPES[source].kind == "int" else "u"
    return words.view(f"<{kind}{word_size(source)}").astype(word_dtype(dtype))


def encode(new: TensorWords, base: TensorWords, ranges: Sequence[Range]) -> Encoded | None:
    """Encode the chunks ``ranges``; None when the base does not convert."""
    target = Target(new.dtype, new.shape)
    if not fits(target, base):
        return None
    chunks = (
        residual.encode(
            new.read(*r), _convert(base.read(*r), base.dtype, new.dtype), new.dtype, target.row_words
        )
        for r in ranges
    )
    return Encoded(NAME, None, tuple(chunks))


@dataclass(frozen=True)
class _Decoder:
    target: Target
    base: Base

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> Words:
        """Return the words of one chunk."""
        predicted = _convert(self.base.read(start, stop), self.base.dtype, self.target.dtype)
        return residual.decode(payload, predicted, self.target.dtype)


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> _Decoder:
    """Get ready to decode chunks of ``target``."""
    if shared or not fits(target, base):
        raise CodecError("a cast layer does not fit its base")
    return _Decoder(target, base)
