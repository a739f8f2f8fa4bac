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

    from theta_native.coded import surveys

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


@cache
def slices(size: int) -> surveys.Sampling:
    """Return the sample of a plane of ``size`` bytes: equal slices at equal distances."""
    if size <= _SAMPLE_LEAST:
        return kernels.surveys.Sampling(1, size, 0)
    length = min(max(size // _SAMPLE_SHARE, _SAMPLE_LEAST), _SAMPLE_BYTES) // _SAMPLE_SLICES
    return kernels.surveys.Sampling(_SAMPLE_SLICES, length, (size - length) // (_SAMPLE_SLICES - 1))


@dataclass(frozen=True)
class Uncoded:
    """A plane (u1, contiguous) that is to be encoded.

    Attributes:
        plane: its bytes.
        sample: some of them.
        entropy: the order-0 entropy of these in bits a byte: what one takes, whatever is beside it.
        repeats: whether it belongs to data with long repetitions, so that matches far away are tried too.
    """

    plane: Plane
    sample: Plane
    entropy: float
    repeats: bool = False

    @classmethod
    def of(cls, plane: Plane) -> Uncoded:
        """Return ``plane`` with its sample."""
        sample = slices(plane.size).of(plane)
        return cls(plane, sample, entropy(kernels.surveys.sum_of(sample), sample.size))

    def without_frame(self) -> tuple[int, Payload] | None:
        """Return method and payload of one that no compressor is needed for, or None."""
        plane = self.plane
        if plane.size and plane[-1] == plane[0] and (plane == plane[0]).all():
            return CONSTANT, bytes([plane[0]])
        return (RAW, plane.data) if plane.size < _LEAST_FRAME else None


def entropy(total: int, size: int) -> float:
    """Return the entropy of ``size`` bytes, of which a survey has ``total`` among its sums."""
    return max(math.log2(size) - total / (kernels.surveys.SCALE * size), 0.0) if size else 0.0


def _are_matched(uncoded: Sequence[Uncoded]) -> list[bool]:
    """Return for each whether a match finder saves more of its sample than the frequencies of its bytes."""
    parts = [one.sample for one in uncoded]
    found = [True] * len(parts)
    large = [k for k, part in enumerate(parts) if part.size == _SAMPLE_BYTES]
    fewer = [parts[k].reshape(_SAMPLE_SLICES, -1)[::4].reshape(-1) for k in large]
    for k, part, frame in zip(large, fewer, _compressed("fast", fewer), strict=True):
        found[k] = len(frame) < _MAYBE * uncoded[k].entropy / 8 * part.size
    left = [k for k, is_left in enumerate(found) if is_left]
    for k, frame in zip(left, _compressed("fast", [parts[k] for k in left]), strict=True):
        found[k] = len(frame) < _SURELY * uncoded[k].entropy / 8 * parts[k].size
    return found


def _compressed(kind: str, planes: Sequence[Plane]) -> list[Payload]:
    """Return a frame of each of ``planes``; one call takes all small ones, so that other threads run."""
    by_kernel = kernels.huffman.frame if kind == "huffman" else None
    found = [by_kernel(one) if by_kernel is not None and one.size > _LARGE else None for one in planes]
    frames: list[Payload | None] = [None if one is None else one.data for one in found]
    left = [k for k, frame in enumerate(frames) if frame is None]
    compressor = _LOCAL.compressor(kind)
    datas: list[bytes | bytearray | memoryview] = [planes[k].data for k in left]
    if len(left) > 1 and hasattr(compressor, "multi_compress_to_buffer"):
        made = compressor.multi_compress_to_buffer(datas)
        new = [made[number].tobytes() for number in range(len(left))]
    else:
        new = [*map(compressor.compress, datas)]
    for k, frame in zip(left, new, strict=True):
        frames[k] = frame
    return [frame for frame in frames if frame is not None]


def _best_frames(uncoded: Sequence[Uncoded]) -> list[Payload | None]:
    """Return the shortest frame of each that a compressor which may pay makes, or None."""
    members = {
        "huffman": [one.entropy <= _INCOMPRESSIBLE_BITS for one in uncoded],
        "fast": _are_matched(uncoded),
        "long": [one.repeats for one in uncoded],
    }
    best: list[Payload | None] = [None] * len(uncoded)
    for kind, chosen in members.items():
        wanted = [k for k, is_wanted in enumerate(chosen) if is_wanted]
        for k, frame in zip(wanted, _compressed(kind, [uncoded[k].plane for k in wanted]), strict=True):
            before = best[k]
            best[k] = frame if before is None or len(frame) < len(before) else before
    return best


def encode_planes(uncoded: Sequence[Uncoded]) -> list[tuple[int, Payload]]:
    """Encode planes; return method and payload of each, which may be the plane itself."""
    found = [one.without_frame() for one in uncoded]
    left = [k for k, coded in enumerate(found) if coded is None]
    for k, frame in zip(left, _best_frames([uncoded[k] for k in left]), strict=True):
        plane = uncoded[k].plane
        found[k] = (ZSTD, frame) if frame is not None and len(frame) < plane.size else (RAW, plane.data)
    return [coded for coded in found if coded is not None]


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
    return section(encode_planes([*map(Uncoded.of, planes)]))


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
