"""Coding of one plane without a model of its bytes: raw, constant, or a Zstandard frame.

The format of planes and sections is that of :mod:`theta.codecs.planes`, whose method 3 is not known
here.  Entropy sections hold sections of this kind, so a plane in them cannot nest without end.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Final, TypeVar

import zstandard

from theta import _kernels as kernels
from theta._numpy import np
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.uint8]
    Payload = bytes | memoryview

P = TypeVar("P")

RAW: Final = 0
ZSTD: Final = 1
CONSTANT: Final = 2

_ENTRY: Final = struct.Struct("<BI")
_SAMPLE_SLICES: Final = 16
_SAMPLE_SHARE: Final = 4
_SAMPLE_LEAST: Final = 1 << 13
_SAMPLE_BYTES: Final = 1 << 16
"""The share of a plane that is looked at, and the fewest and the most bytes."""
_INCOMPRESSIBLE_BITS: Final = 7.9
_MAYBE: Final = 1.05
_SURELY: Final = 0.97
"""Shares of what single bytes take, below which matches pay: of a quarter of a sample, of all of it."""
_LARGE: Final = 1 << 16
"""The number of bytes above which the kernels of a Huffman coder are worth their loading."""
_MAX_WINDOW: Final = 1 << 23
_LEAST_FRAME: Final = 12
"""The bytes of the shortest frame of bytes that are not all equal."""

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
        """Return the compressor called ``kind``: huffman, fast or long."""
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
    """Return a fixed sample of the plane: equal slices at equal distances."""
    if plane.size <= _SAMPLE_LEAST:
        return plane
    wanted = min(max(plane.size // _SAMPLE_SHARE, _SAMPLE_LEAST), _SAMPLE_BYTES)
    length = wanted // _SAMPLE_SLICES
    stride = (plane.size - length) // (_SAMPLE_SLICES - 1)
    slices: Plane = np.ndarray((_SAMPLE_SLICES, length), np.uint8, plane.data, 0, (stride, 1))
    return slices.reshape(-1)


def entropy_bits(plane: Plane) -> float:
    """Return the order-0 entropy of the bytes of ``plane``, in bits a byte."""
    if plane.size == 0:
        return 0.0
    counts = np.bincount(plane)
    if plane.size > _SAMPLE_BYTES:
        shares = counts[counts > 0] / plane.size
        return float(-(shares * np.log2(shares)).sum())
    return max(math.log2(plane.size) - float(_products()[counts].sum()) / plane.size, 0.0)


@cache
def _products() -> NDArray[np.float64]:
    """Return ``n * log2(n)`` for the counts of a sample."""
    counts = np.arange(_SAMPLE_BYTES + 1, dtype=np.float64)
    found: NDArray[np.float64] = counts * np.log2(np.maximum(counts, 1))
    return found


@dataclass(frozen=True)
class Sample:
    """Some bytes of a plane, and the bits that one of them takes, whatever is beside it."""

    part: Plane
    entropy: float

    @classmethod
    def of(cls, plane: Plane) -> Sample:
        """Return the sample of ``plane``."""
        part = spread_sample(plane)
        return cls(part, entropy_bits(part))


def _candidates(sample: Sample, repeats: bool) -> list[str]:
    """Return the compressors worth running on the whole plane whose sample is given."""
    best = [] if sample.entropy > _INCOMPRESSIBLE_BITS else ["huffman"]
    if _is_matched(sample):
        best = [*best, "fast"]
    return [*best, "long"] if repeats else best


def _is_matched(sample: Sample) -> bool:
    """Return whether a match finder saves more of the sample than the frequencies of its bytes."""
    slices = sample.part.reshape(_SAMPLE_SLICES, -1) if sample.part.size == _SAMPLE_BYTES else None
    for part, share in (
        (None if slices is None else slices[::4].reshape(-1), _MAYBE),
        (sample.part, _SURELY),
    ):
        if part is not None:
            found = len(_LOCAL.compressor("fast").compress(part.data))
            if found >= share * sample.entropy / 8 * part.size:
                return False
    return True


def _compressed(kind: str, plane: Plane) -> Payload:
    if kind == "huffman" and plane.size > _LARGE:
        found = kernels.huffman.frame(plane)
        if found is not None:
            return found.data
    return _LOCAL.compressor(kind).compress(plane.data)


def is_constant(plane: Plane) -> bool:
    """Return whether all bytes of ``plane`` (at least one) are equal."""
    return bool(plane[-1] == plane[0]) and bool((plane == plane[0]).all())


def encode_plane(plane: Plane, repeats: bool = False, sample: Sample | None = None) -> tuple[int, Payload]:
    """Encode one plane (u1, contiguous); return method and payload, which may be the plane itself.

    ``repeats`` says that the plane belongs to data with long repetitions
    (:func:`theta.codecs.planes.has_repeats`), so that long-distance matching is tried as well.
    """
    if plane.size == 0:
        return RAW, b""
    if is_constant(plane):
        return CONSTANT, bytes([plane[0]])
    if plane.size < _LEAST_FRAME:
        return RAW, plane.data
    frames = [_compressed(kind, plane) for kind in _candidates(sample or Sample.of(plane), repeats)]
    best = min(frames, key=len, default=None)
    return (ZSTD, best) if best is not None and len(best) < plane.size else (RAW, plane.data)


def _unzstd(payload: memoryview, size: int, longest: int | None = None) -> bytes:
    """Return the ``size`` bytes of the frame ``payload``; the size is checked before allocation.

    With ``longest`` it may be any from 1 to that.
    """
    try:
        frame = zstandard.get_frame_parameters(payload)
        if longest is not None and 0 < frame.content_size <= longest:
            size = frame.content_size
        if frame.content_size != size or frame.dict_id:
            raise CodecError("a compressed plane does not hold the bytes that it must")
        plain = _LOCAL.decompressor.decompress(payload, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"a compressed plane is damaged: {error}") from error
    if len(plain) != size:
        raise CodecError("a compressed plane does not hold the bytes that it must")
    return plain


def decoded(method: int, payload: memoryview, size: int) -> Plane:
    """Return the ``size`` bytes of one plane, not to be written to; raises ``CodecError``."""
    if method == CONSTANT and len(payload) == 1 and size:
        return np.full(size, payload[0], np.uint8)
    if method == RAW and len(payload) == size:
        return np.frombuffer(payload, np.uint8)
    if method == ZSTD and size:
        return np.frombuffer(_unzstd(payload, size), np.uint8)
    raise CodecError(f"a plane of {size} bytes has method {method} and {len(payload)} bytes")


def stored_planes(
    blob: memoryview, start: int, sections: Sequence[int], longest: int
) -> tuple[Plane, NDArray[np.int64], int]:
    """Return the planes of sections that follow each other, and the end of the last one.

    ``sections`` are the numbers of their planes.  Their bytes stand in one array; of a constant plane there
    is one.  Behind the places where each begins, and the last ends, is 1 for each that is constant.  A plane
    may have up to ``longest`` bytes if it is compressed.  Raises :class:`~theta.errors.CodecError`.
    """
    pieces: list[Payload] = []
    constant: list[bool] = []
    for count in sections:
        found, start = _planes(blob, start, count)
        pieces += [_stored(method, payload, longest) for method, payload in found]
        constant += [method == CONSTANT for method, _ in found]
    ends = accumulate(map(len, pieces), initial=0)
    return np.frombuffer(b"".join(pieces), np.uint8), np.array([*ends, *constant], np.int64), start


def _stored(method: int, payload: memoryview, longest: int) -> Payload:
    """Return the bytes of a plane, or the one byte that all of them are."""
    if method == ZSTD:
        return _unzstd(payload, 0, longest)
    if method == RAW or (method == CONSTANT and len(payload) == 1):
        return payload
    raise CodecError(f"a plane has method {method} and {len(payload)} bytes")


def encode_section(planes: Iterable[Plane]) -> bytes:
    """Encode ``planes``, in order, as a section."""
    return section(map(encode_plane, planes))


def section(coded: Iterable[tuple[int, Payload]], before: bytes = b"") -> bytes:
    """Join ``before`` and the section of planes with these methods and payloads."""
    rows = list(coded)
    heads = [_ENTRY.pack(method, len(payload)) for method, payload in rows]
    return b"".join((before, *heads, *(payload for _, payload in rows)))


def read_section(
    blob: memoryview, start: int, sizes: Sequence[int], decode: Callable[[int, memoryview, int], P]
) -> tuple[list[P], int]:
    """Decode planes of these sizes from the section at ``start``; return them and its end.

    Raises :class:`~theta.errors.CodecError` for anything malformed.
    """
    found, end = _planes(blob, start, len(sizes))
    decoded = [decode(method, payload, size) for (method, payload), size in zip(found, sizes, strict=True)]
    return decoded, end


def _planes(blob: memoryview, start: int, count: int) -> tuple[list[tuple[int, memoryview]], int]:
    """Return method and payload of each of ``count`` planes of the section at ``start``, and its end."""
    position = start + _ENTRY.size * count
    if position > len(blob):
        raise CodecError("an encoded chunk is cut short")
    found = []
    for method, length in _ENTRY.iter_unpack(blob[start:position]):
        if length > len(blob) - position:
            raise CodecError("an encoded chunk is cut short")
        found.append((method, blob[position : position + length]))
        position += length
    return found, position
