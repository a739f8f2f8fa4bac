"""Coding of one plane without a model of its bytes: raw, constant, or a Zstandard frame.

The format of planes and sections is that of :mod:`theta.codecs.planes`, whose method 3 is not known
here.  Entropy sections hold sections of this kind, so a plane in them cannot nest without end.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import zstandard

from theta._numpy import np
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.uint8]

RAW: Final = 0
ZSTD: Final = 1
CONSTANT: Final = 2

_ENTRY: Final = struct.Struct("<BI")
_SAMPLE_SLICES: Final = 16
_SAMPLE_BYTES: Final = 1 << 16
_INCOMPRESSIBLE_BITS: Final = 7.9
_MAX_WINDOW: Final = 1 << 23

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


def spread_sample(plane: Plane) -> Plane:
    """A fixed sample of the plane: equal slices at equal distances."""
    if plane.size <= _SAMPLE_BYTES:
        return plane
    length = _SAMPLE_BYTES // _SAMPLE_SLICES
    stride = (plane.size - length) // (_SAMPLE_SLICES - 1)
    return np.concatenate([plane[k * stride : k * stride + length] for k in range(_SAMPLE_SLICES)])


def entropy_bits(plane: Plane) -> float:
    """The order-0 entropy of the bytes of ``plane``, in bits a byte."""
    counts = np.bincount(plane, minlength=1)
    shares = counts[counts > 0] / max(plane.size, 1)
    return float(-(shares * np.log2(shares)).sum())


def _candidates(sample: Plane, repeats: bool) -> list[str]:
    """The compressors worth running on the whole plane whose sample is given."""
    entropy = entropy_bits(sample)
    fast = len(_LOCAL.compressor("fast").compress(sample.data))
    best = [] if entropy > _INCOMPRESSIBLE_BITS else ["huffman"]
    if fast < 0.97 * entropy / 8 * sample.size:
        best = [*best, "fast"]
    return [*best, "long"] if repeats else best


def encode_plane(plane: Plane, repeats: bool = False) -> tuple[int, bytes]:
    """The method and the payload of one plane (u1, contiguous).

    ``repeats`` says that the plane belongs to data with long repetitions
    (:func:`theta.codecs.planes.has_repeats`), so that long-distance matching is tried as well.
    """
    if plane.size == 0:
        return RAW, b""
    first = plane[0]
    if plane[-1] == first and bool((plane == first).all()):
        return CONSTANT, bytes([first])
    kinds = _candidates(spread_sample(plane), repeats)
    frames = [_LOCAL.compressor(kind).compress(plane.data) for kind in kinds]
    best = min(frames, key=len, default=None)
    return (ZSTD, best) if best is not None and len(best) < plane.size else (RAW, plane.tobytes())


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


def fill(method: int, payload: memoryview, out: Plane) -> None:
    """Decode one plane into ``out``, whose length is the plane's; raises ``CodecError``."""
    if method == CONSTANT and len(payload) == 1 and out.size:
        out[:] = payload[0]
    elif method == RAW and len(payload) == out.size:
        out[:] = np.frombuffer(payload, np.uint8)
    elif method == ZSTD and out.size:
        out[:] = np.frombuffer(_unzstd(payload, out.size), np.uint8)
    else:
        raise CodecError(f"a plane of {out.size} bytes has method {method} and {len(payload)} bytes")


def encode_section(planes: Iterable[Plane]) -> bytes:
    """A section of ``planes``, in order."""
    return section(map(encode_plane, planes))


def decode_section(blob: memoryview, start: int, outs: Sequence[Plane]) -> int:
    """Decode the section at ``start`` of ``blob`` into ``outs``; the position behind it.

    ``outs`` are writable arrays of the lengths that the planes must have.  Raises
    :class:`~theta.errors.CodecError` for anything malformed.
    """
    return read_section(blob, start, outs, fill)


def section(coded: Iterable[tuple[int, bytes]]) -> bytes:
    """The section of planes with these methods and payloads."""
    rows = list(coded)
    head = b"".join(_ENTRY.pack(method, len(payload)) for method, payload in rows)
    return head + b"".join(payload for _, payload in rows)


def read_section(
    blob: memoryview, start: int, outs: Sequence[Plane], decode: Callable[[int, memoryview, Plane], None]
) -> int:
    """:func:`decode_section`, with ``decode`` for each plane in place of :func:`fill`."""
    position = start + _ENTRY.size * len(outs)
    if position > len(blob):
        raise CodecError("an encoded chunk is cut short")
    for k, out in enumerate(outs):
        method, length = _ENTRY.unpack_from(blob, start + k * _ENTRY.size)
        if length > len(blob) - position:
            raise CodecError("an encoded chunk is cut short")
        decode(method, blob[position : position + length], out)
        position += length
    return position
