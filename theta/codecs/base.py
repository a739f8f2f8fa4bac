"""The arguments and results of layer codecs.

A tensor is a sequence of *words*: its raw bytes in units of the item size of its dtype (a c64
is two f32 words, packed types are words of one byte).  A layer above the lowest describes some
chunks of the tensor by one lower layer, the *base*, of which a codec sees an accessor only.

A codec of layers is a module with

``NAME``
    the name that stands in a repository, with its format version;
``encode(new, base, ranges) -> Encoded | None``
    the chunks of ``new`` (word ranges) as updates of ``base``; None when this codec cannot, or
    where it is plainly not worth it.  ``new`` and ``base`` may be read wherever the codec likes;
``decoder(shared, target, base) -> Decoder``
    checks ``shared`` and gets ready to decode any chunk.  Decoders have no state that changes,
    so that threads may share one.

Everything that a decoder is given may be hostile; each fault raises
:class:`~theta.errors.CodecError`.  The store checks the digest of what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from theta._numpy import np
from theta.dtypes import DTYPES
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]

Range = tuple[int, int]
"""First word and the word after the last of a chunk."""

OnBase = Callable[["Words"], "Words"]
"""Decodes one chunk, whose tables were read, from the words of its base, which it may return."""

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""``map``, or something like it that works on threads."""


def same(base: Words) -> Words:
    """Return the words of a chunk that equals its base."""
    return base


def word_size(dtype: str) -> int:
    """Return the bytes of the words that ``dtype`` is coded in: 1, 2, 4 or 8; a c64 is two f32 words."""
    entry = DTYPES[dtype]
    return 4 if entry.kind == "complex" else entry.itemsize


@cache
def word_dtype(dtype: str) -> np.dtype[Any]:
    """Return the unsigned little-endian numpy dtype of the words of ``dtype``."""
    return np.dtype(f"<u{word_size(dtype)}")


@lru_cache(256)
def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of the numbers below ``count``, in order and at even distances.

    They are remembered, since tensors of a checkpoint are alike; nobody may write to them.
    """
    found = np.linspace(0, count - 1, min(most, count)).astype(np.int64)
    found.flags.writeable = False
    return found


@dataclass(frozen=True)
class Target:
    """The tensor that a layer holds: its dtype and shape; ``CodecError`` if there is no such tensor."""

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        bits = math.prod(self.shape) * DTYPES[self.dtype].bits if self.dtype in DTYPES else 1
        if bits % 8 or min(self.shape, default=0) < 0:
            raise CodecError(f"there is no {self.dtype} tensor of shape {list(self.shape)}")

    @property
    def words(self) -> int:
        """The number of words of the whole tensor."""
        return DTYPES[self.dtype].nbytes(self.shape) // word_size(self.dtype)

    @property
    def rows(self) -> int:
        """The length of the first axis; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def row_words(self) -> int:
        """The words of one index of the first axis; 0 where rows are empty or not whole words."""
        bits = math.prod(self.shape[1:]) * DTYPES[self.dtype].bits
        size = word_size(self.dtype) * 8
        return 0 if bits % size else bits // size


class Base(Protocol):
    """Access to a lower layer, already checked against its digests."""

    @property
    def dtype(self) -> str:
        """The dtype's name (theta.dtypes)."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        ...

    def read(self, start: int, stop: int) -> Words:
        """Return the words from ``start`` to before ``stop``."""
        ...


@dataclass(frozen=True)
class TensorWords:
    """A whole tensor in memory; a :class:`Base` too."""

    dtype: str
    shape: tuple[int, ...]
    words: Words

    def read(self, start: int, stop: int) -> Words:
        """Return the words from ``start`` to before ``stop``."""
        return self.words[start:stop]

    @classmethod
    def from_bytes(cls, raw: bytes | memoryview, dtype: str, shape: Sequence[int]) -> TensorWords:
        """Wrap these raw little-endian bytes without a copy; raises ``CodecError`` if they do not fit."""
        words = np.frombuffer(raw, word_dtype(dtype))
        if words.size != Target(dtype, tuple(shape)).words:
            raise CodecError(f"{words.nbytes} bytes are not a {dtype} tensor of shape {tuple(shape)}")
        return cls(dtype, tuple(shape), words)


@dataclass(frozen=True)
class Encoded:
    """A layer: the codec's name, what its chunks share (None: nothing), a payload for each chunk."""

    codec: str
    shared: bytes | None
    chunks: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """The stored bytes, without what objects and trees add."""
        return len(self.shared or b"") + sum(map(len, self.chunks))


Encode = Callable[[TensorWords, TensorWords, Sequence[Range]], Encoded]
"""Encodes chunks of the first tensor as updates of the second."""


class Decoder(Protocol):
    """Decodes the chunks of one layer."""

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> Words:
        """Return the words of the chunk from ``start`` to ``stop``; raises ``CodecError``."""
        ...


class LayerCodec(Protocol):
    """The module interface of a codec of layers."""

    NAME: str

    def encode(self, new: TensorWords, base: TensorWords, ranges: Sequence[Range]) -> Encoded | None:
        """Encode the chunks ``ranges`` of ``new``, or decline."""
        ...

    def decoder(self, shared: bytes | memoryview | None, target: Target, base: Base) -> Decoder:
        """Get ready to decode chunks of ``target``."""
        ...
