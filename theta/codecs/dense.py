"""``dense/1``: one chunk of a tensor on its own, as byte planes.

Format of a chunk of ``n`` raw bytes (little-endian words of ``w`` bytes)::

    u8       w, the number of planes: the bytes of a word (1, 2, 4 or 8; 4 for c64)
    section  w planes of n / w bytes each (theta.codecs.planes):
             w times: u8 method (0 raw, 1 zstd, 2 constant, 3 rans), u32 LE length of the payload;
             then the w payloads in the same order, and nothing after them

Plane ``k`` holds byte ``k`` (0 = lowest) of every word.  For f16, bf16, f32, f64 and c64 (two
f32 words an element) the words are first rotated left by one bit: the sign becomes the lowest
bit.  8-bit types, bool, packed types and bytes have one plane, which is the raw data.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from theta._kernels import byte_planes
from theta._numpy import np
from theta.codecs import planes
from theta.codecs.base import word_size
from theta.dtypes import DTYPES
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME: Final = "dense/1"
_SMALL: Final = 1 << 16
"""The words of an array that is encoded with others."""


def is_rotated(dtype: str) -> bool:
    """Return whether words of ``dtype`` have a sign bit on top that is moved to the low end."""
    return DTYPES[dtype].kind in ("float", "complex") and word_size(dtype) > 1


def encode_words(words: NDArray[Any], rotate: bool) -> bytes:
    """Encode an array of unsigned words (1, 2, 4 or 8 bytes each)."""
    return _encode_joined([words], rotate)[0]


def encode_each(chunks: Sequence[NDArray[Any]], rotate: bool) -> list[bytes]:
    """Encode arrays of words of one dtype.

    Small ones are encoded together: threads would wait for each other after each of many short calls.
    """
    small = [k for k, one in enumerate(chunks) if one.size <= _SMALL and not one.nbytes % 8]
    found = dict(zip(small, _encode_joined([chunks[k] for k in small], rotate), strict=True)) if small else {}
    return [found[k] if k in found else encode_words(one, rotate) for k, one in enumerate(chunks)]


def _encode_joined(chunks: Sequence[NDArray[Any]], rotate: bool) -> list[bytes]:
    """Encode arrays of words, all but the last of whole groups of eight bytes."""
    words = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    starts = [*accumulate((one.size for one in chunks), initial=0)]
    return planes.encode_chunks(words, byte_planes.split(words, rotate), starts, bytes([words.itemsize]))


def decode_words(
    blob: bytes | memoryview, width: int, size: int, rotate: bool, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return the ``size`` words of ``width`` bytes in ``blob``, in ``out`` if that is given.

    Raises ``CodecError`` if they are malformed.
    """
    view = memoryview(blob)
    if len(view) < 1 or view[0] != width:
        raise CodecError(f"a dense chunk does not have {width} planes")
    found, end = planes.read_planes(view, 1, [size] * width)
    if end != len(view):
        raise CodecError("a dense chunk has bytes behind its end")
    return byte_planes.join(found, rotate, out)


def encode(raw: bytes | memoryview, dtype: str) -> bytes:
    """Encode the raw little-endian bytes of one chunk.

    Raises ``KeyError`` for an unknown dtype, ``ValueError`` where ``raw`` is not whole words.
    """
    return encode_words(np.frombuffer(raw, f"<u{word_size(dtype)}"), is_rotated(dtype))


def decode(blob: bytes | memoryview, dtype: str, nbytes: int) -> memoryview:
    """Return the ``nbytes`` raw bytes of a chunk; allocates at most twice that.

    Raises :class:`~theta.errors.CodecError` for anything that is not exactly such a chunk.
    """
    width = word_size(dtype)
    if nbytes < 0 or nbytes % width:
        raise CodecError(f"{nbytes} bytes are not whole words of {dtype}")
    words = decode_words(blob, width, nbytes // width, is_rotated(dtype))
    return words.data.cast("B")
