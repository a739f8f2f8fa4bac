"""Coding of byte planes: the last step of every codec.

A *plane* is a run of bytes of one kind (see ``theta_native.byte_planes``), of a length that the
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

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import frames
from theta.errors import CodecError
from theta.lazy import Module

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.codecs import entropy
    from theta_native.coded import surveys

    Plane = NDArray[np.uint8]
    Payload = bytes | memoryview
else:
    entropy = Module("theta.codecs.entropy")

RANS: Final = 3

# rANS decodes three to four times slower than zstd: worth it from a twentieth on.  (Signs: zstd
# takes 1.5 bits each, since chance matches keep it from plain Huffman codes.)
_RANS_GAIN: Final = 0.95
_RANS_HEAD: Final = 64
_RANS_RULES: Final = entropy.TOKEN_RULES[-1:]
_RANS_LEAST: Final = 1 << 13
"""Bytes of the largest plane that rANS is not tried on: its tables would take what it gains."""
_LEAST_MARKS: Final = 8
"""The marks that tell of repetitions."""


def has_repeats(found: surveys.Survey) -> bool:
    """Return whether a survey tells of aligned runs of 32 bytes that occur more than once, and many.

    They may be at any distance.  A wrong guess costs time or bytes, never correctness.
    """
    return found.marks >= _LEAST_MARKS and found.distinct < 0.9 * found.marks


def _encode_planes(uncoded: Sequence[frames.Uncoded]) -> list[tuple[int, Payload]]:
    """Encode planes; return method and payload of each."""
    coded = frames.encode_planes(uncoded)
    return [_or_rans(one, *found) for one, found in zip(uncoded, coded, strict=True)]


def _or_rans(one: frames.Uncoded, method: int, payload: Payload) -> tuple[int, Payload]:
    """Return a plane with this method and payload, or as an entropy section if that is smaller."""
    size = one.plane.size
    if size <= _RANS_LEAST or method == frames.CONSTANT:
        return method, payload
    if one.entropy / 8 * size < _RANS_GAIN * len(payload) - _RANS_HEAD:
        coded = _rans(one.plane)
        if len(coded) < _RANS_GAIN * len(payload):
            return RANS, coded
    return method, payload


def _rans(plane: Plane) -> bytes:
    """Encode a plane whose neighbouring bytes are independent as an entropy section."""
    contexts = np.zeros(plane.size, np.uint16)
    keys = kernels.contexts.ContextKeys.of(contexts, 1)
    return entropy.encode(plane, keys, entropy.choose(plane, contexts, (1, 1, 1), _RANS_RULES)).data


def _unrans(payload: memoryview, size: int) -> Plane:
    """Return the ``size`` bytes of an entropy section."""
    keys = kernels.contexts.ContextKeys.of(np.zeros(size, np.uint16), 1)
    values, end = entropy.decode(payload, 0, keys, np.dtype(np.uint8))
    if end != len(payload):
        raise CodecError("a plane has bytes behind its end")
    return values


def _decoded(method: int, payload: memoryview, size: int) -> Plane:
    """Return the ``size`` bytes of one plane."""
    return _unrans(payload, size) if method == RANS and size else frames.decoded(method, payload, size)


def encode_section(planes: Iterable[Plane]) -> bytes:
    """Encode ``planes``, in order."""
    return frames.section(_encode_planes([*map(frames.Uncoded.of, planes)]))


def encode_chunks(
    words: NDArray[Any], planes: NDArray[np.uint8], starts: Sequence[int], before: bytes
) -> list[bytes]:
    """Encode the byte planes of chunks, each as a section behind ``before``.

    ``words`` are all of them, one chunk behind the other, and ``planes`` their planes, shape
    ``(itemsize, size)``.  A chunk begins at each of ``starts``, a multiple of eight bytes, but at the last.
    """
    slices = [frames.slices(end - start) for start, end in pairwise(starts)]
    found = kernels.surveys.survey(words, planes, starts, slices)
    uncoded = [
        frames.Uncoded(plane[start:end], sample, frames.entropy(total, sample.size), has_repeats(one))
        for one, (start, end) in zip(found, pairwise(starts), strict=True)
        for plane, sample, total in zip(planes, one.samples, one.sums, strict=True)
    ]
    coded, count = _encode_planes(uncoded), len(planes)
    return [frames.section(coded[k : k + count], before) for k in range(0, len(coded), count)]


def decode_section(blob: memoryview, start: int, outs: Sequence[Plane]) -> int:
    """Decode the section at ``start`` of ``blob`` into ``outs``; the position behind it.

    ``outs`` are writable arrays of the lengths that the planes must have.  Raises
    :class:`~theta.errors.CodecError` for anything malformed.
    """
    found, position = frames.read_section(blob, start, [out.size for out in outs], _decoded)
    for out, plane in zip(outs, found, strict=True):
        out[:] = plane
    return position


def read_planes(blob: memoryview, start: int, sizes: Sequence[int]) -> tuple[list[Plane], int]:
    """Decode planes of these sizes from the section at ``start`` of ``blob``; return them and its end.

    They are not copied, and may not be written to.  Raises as :func:`decode_section`.
    """
    return frames.read_section(blob, start, sizes, _decoded)
