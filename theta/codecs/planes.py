"""Coding of byte planes: the last step of every codec.

A *plane* is a run of bytes of one kind (see ``theta_native.planes``), of a length that the
decoder knows.  It is stored as a method byte and a payload:

====== ========== ============================================================================
method name       payload
====== ========== ============================================================================
0      raw        the bytes themselves
1      zstd       one Zstandard frame (RFC 8878) with its content size in the header, no
                  dictionary, nothing behind it
2      constant   one byte, which all bytes of the plane are equal to
3      rans       one entropy section (theta.codecs.entropy) of the bytes, all in context 0;
                  not in the sections that entropy sections contain themselves
====== ========== ============================================================================

A *section* holds a number of planes that the decoder knows: for each plane the method byte
and the payload's length (u32, little-endian), then all payloads in the same order.  A plane
of no bytes is stored raw.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import zstandard

from theta.errors import CodecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Plane = NDArray[np.uint8]

RAW: Final = 0
ZSTD: Final = 1
CONSTANT: Final = 2
RANS: Final = 3

_ENTRY: Final = struct.Struct("<BI")
_SAMPLE_SLICES: Final = 16
_SAMPLE_BYTES: Final = 1 << 16
_INCOMPRESSIBLE_BITS: Final = 7.9
# rANS decodes three to four times slower than zstd: worth it from a twentieth on.  (Signs: zstd
# takes 1.5 bits each, since chance matches keep it from plain Huffman codes.)
_RANS_GAIN: Final = 0.95
_RANS_HEAD: Final = 64
_RANS_LEAST: Final = 1 << 13
"""Bytes of the largest plane that rANS is not tried on: its tables would take what it gains."""
_MAX_WINDOW: Final = 1 << 23
_ONE_GROUP_IN: Final = 64

# Nearly Huffman alone, in a standard frame: the match finder of the common levels finds
# chance matches in weights, which cost size and time.  128 KiB (one zstd block) is the window,
# since every block has a Huffman table of its own.  target_length must be 0: above it, zstd
# stores literals raw at this strategy.
_HUFFMAN: Final = {
    "compression_level": 1,
    "strategy": zstandard.STRATEGY_FAST,
    "window_log": 17,
    "hash_log": 6,
    "chain_log": 6,
    "search_log": 1,
    "min_match": 7,
    "target_length": 0,
}
_LONG: Final = {"enable_ldm": True, "window_log": 22, "ldm_min_match": 32}


class _Local(threading.local):
    """The compressors of one thread: zstd contexts must not be shared between threads."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._made: dict[str, zstandard.ZstdCompressor] = {}

    def compressor(self, kind: str) -> zstandard.ZstdCompressor:
        """The compressor called ``kind``: huffman, fast or long."""
        if kind not in self._made:
            parameters = {
                "huffman": lambda: zstandard.ZstdCompressionParameters(**_HUFFMAN),
                "fast": lambda: zstandard.ZstdCompressionParameters.from_level(1),
                "long": lambda: zstandard.ZstdCompressionParameters.from_level(3, **_LONG),
            }[kind]()
            self._made[kind] = zstandard.ZstdCompressor(compression_params=parameters)
        return self._made[kind]


_LOCAL: Final = _Local()


def _spread_sample(plane: Plane) -> Plane:
    """A fixed sample of the plane: equal slices at equal distances."""
    import numpy as np

    if plane.size <= _SAMPLE_BYTES:
        return plane
    length = _SAMPLE_BYTES // _SAMPLE_SLICES
    stride = (plane.size - length) // (_SAMPLE_SLICES - 1)
    return np.concatenate([plane[k * stride : k * stride + length] for k in range(_SAMPLE_SLICES)])


def entropy_bits(plane: Plane) -> float:
    """The order-0 entropy of the bytes of ``plane``, in bits a byte."""
    import numpy as np

    counts = np.bincount(plane, minlength=1)
    shares = counts[counts > 0] / max(plane.size, 1)
    return float(-(shares * np.log2(shares)).sum())


def has_repeats(words: NDArray[Any]) -> bool:
    """Whether many aligned runs of 32 bytes occur more than once, at any distance.

    Looks at about one group of eight bytes in 64, chosen by a hash of its content, with the 24
    bytes after it.  A wrong answer costs time or bytes, never correctness.
    """
    import numpy as np

    from theta_native.repeats import marks

    data = words.view(np.uint8)
    chosen = np.sort(marks(data[: data.size & ~7].view("<u8"), _ONE_GROUP_IN))
    distinct = 1 + int(np.count_nonzero(np.diff(chosen)))
    return chosen.size >= 8 and distinct < 0.9 * chosen.size


def _candidates(sample: Plane, repeats: bool) -> list[str]:
    """The compressors worth running on the whole plane whose sample is given."""
    entropy = entropy_bits(sample)
    fast = len(_LOCAL.compressor("fast").compress(sample.data))
    best = [] if entropy > _INCOMPRESSIBLE_BITS else ["huffman"]
    if fast < 0.97 * entropy / 8 * sample.size:
        best = [*best, "fast"]
    return [*best, "long"] if repeats else best


def encode_plane(plane: Plane, repeats: bool = False, inner: bool = False) -> tuple[int, bytes]:
    """The method and the payload of one plane (u1, contiguous).

    ``repeats`` says that the plane belongs to data with long repetitions
    (:func:`has_repeats`), so that long-distance matching is tried as well; ``inner`` that it is
    part of an entropy section.
    """
    if plane.size == 0:
        return RAW, b""
    first = plane[0]
    if plane[-1] == first and bool((plane == first).all()):
        return CONSTANT, bytes([first])
    sample = _spread_sample(plane)
    frames = [_LOCAL.compressor(kind).compress(plane.data) for kind in _candidates(sample, repeats)]
    best = min(frames, key=len, default=b"")
    method, size = (ZSTD, len(best)) if frames and len(best) < plane.size else (RAW, plane.size)
    is_large = plane.size > _RANS_LEAST and not inner
    if is_large and entropy_bits(sample) / 8 * plane.size < _RANS_GAIN * size - _RANS_HEAD:
        coded = _rans(plane)
        if len(coded) < _RANS_GAIN * size:
            return RANS, coded
    return method, best if method == ZSTD else plane.tobytes()


def _rans(plane: Plane) -> bytes:
    """The entropy section of a plane whose neighbouring bytes have nothing to do with each other."""
    import numpy as np

    from theta.codecs import entropy

    contexts = np.zeros(plane.size, np.uint16)
    tokenised = entropy.tokenise(plane, entropy.TOKEN_RULES[-1], contexts, 1)
    return entropy.encode(tokenised, contexts, entropy.plan(tokenised.counts))


def _unrans(payload: memoryview, size: int) -> Plane:
    """The ``size`` bytes of an entropy section."""
    import numpy as np

    from theta.codecs import entropy

    values, end = entropy.decode(payload, 0, np.zeros(size, np.uint16), 1, np.dtype(np.uint8))
    if end != len(payload):
        raise CodecError("a plane has bytes behind its end")
    return values


def _unzstd(payload: memoryview, size: int) -> bytes:
    """The ``size`` bytes of the frame ``payload``; the size is checked before allocation."""
    try:
        frame = zstandard.get_frame_parameters(payload)
        if frame.content_size != size or frame.dict_id:
            raise CodecError("a compressed plane does not hold the bytes that it must")
        plain = _LOCAL.decompressor.decompress(payload, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"a compressed plane is damaged: {error}") from error
    if len(plain) != size:
        raise CodecError("a compressed plane does not hold the bytes that it must")
    return plain


def _fill(method: int, payload: memoryview, out: Plane, inner: bool) -> None:
    """Decode one plane into ``out``, whose length is the plane's."""
    import numpy as np

    if method == CONSTANT and len(payload) == 1 and out.size:
        out[:] = payload[0]
    elif method == RAW and len(payload) == out.size:
        out[:] = np.frombuffer(payload, np.uint8)
    elif method == ZSTD and out.size:
        out[:] = np.frombuffer(_unzstd(payload, out.size), np.uint8)
    elif method == RANS and out.size and not inner:  # inside itself, a blob could nest without end
        out[:] = _unrans(payload, out.size)
    else:
        raise CodecError(f"a plane of {out.size} bytes has method {method} and {len(payload)} bytes")


def encode_section(planes: Sequence[Plane], repeats: bool = False, inner: bool = False) -> bytes:
    """A section of ``planes``, in order; the options are those of :func:`encode_plane`."""
    coded = [encode_plane(plane, repeats, inner) for plane in planes]
    head = b"".join(_ENTRY.pack(method, len(payload)) for method, payload in coded)
    return head + b"".join(payload for _, payload in coded)


def decode_section(blob: memoryview, start: int, outs: Sequence[Plane], inner: bool = False) -> int:
    """Decode the section at ``start`` of ``blob`` into ``outs``; the position behind it.

    ``outs`` are writable arrays of the lengths that the planes must have; ``inner`` says that the
    section is part of an entropy section.  Raises
    :class:`~theta.errors.CodecError` for anything malformed.
    """
    position = start + _ENTRY.size * len(outs)
    if position > len(blob):
        raise CodecError("an encoded chunk is cut short")
    for k, out in enumerate(outs):
        method, length = _ENTRY.unpack_from(blob, start + k * _ENTRY.size)
        if length > len(blob) - position:
            raise CodecError("an encoded chunk is cut short")
        _fill(method, blob[position : position + length], out, inner)
        position += length
    return position
