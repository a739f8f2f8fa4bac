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
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import frames
from theta.errors import CodecError
from theta.lazy import Module

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.codecs import entropy

    Plane = NDArray[np.uint8]
    Payload = bytes | memoryview
else:
    entropy = Module("theta.codecs.entropy")

RANS: Final = 3

# rANS decodes three to four times slower than zstd: worth it from a twentieth on.  (Signs: zstd
# takes 1.5 bits each, since chance matches keep it from plain Huffman codes.)
_RANS_GAIN: Final = 0.95
_RANS_HEAD: Final = 64
_RANS_LEAST: Final = 1 << 13
"""Bytes of the largest plane that rANS is not tried on: its tables would take what it gains."""
_ONE_GROUP_IN: Final = 64
_LEAST_MARKS: Final = 8
_LEAST_REPEATED: Final = 8 * (_LEAST_MARKS + 3)
"""The marks that tell of repetitions, and the bytes of the groups in which there may be as many."""


def has_repeats(words: NDArray[Any]) -> bool:
    """Return whether many aligned runs of 32 bytes occur more than once, at any distance.

    Looks at about one group of eight bytes in 64, chosen by a hash of its content, with the 24
    bytes after it.  A wrong guess costs time or bytes, never correctness.
    """
    if words.nbytes < _LEAST_REPEATED:
        return False
    data = words.view(np.uint8)
    chosen = kernels.fingerprints.marks(data[: data.size & ~7].view("<u8"), _ONE_GROUP_IN)
    if chosen.size < _LEAST_MARKS:
        return False
    chosen = np.sort(chosen)
    distinct = 1 + int(np.count_nonzero(chosen[1:] != chosen[:-1]))
    return distinct < 0.9 * chosen.size


def encode_plane(plane: Plane, repeats: bool = False) -> tuple[int, Payload]:
    """Encode one plane (u1, contiguous); return its method and payload.

    ``repeats`` says that the plane belongs to data with long repetitions (:func:`has_repeats`).
    """
    if plane.size <= _RANS_LEAST or frames.is_constant(plane):
        return frames.encode_plane(plane, repeats)
    sample = frames.Sample.of(plane)
    method, payload = frames.encode_plane(plane, repeats, sample)
    expected = sample.entropy / 8 * plane.size
    if expected < _RANS_GAIN * len(payload) - _RANS_HEAD:
        coded = _rans(plane)
        if len(coded) < _RANS_GAIN * len(payload):
            return RANS, coded
    return method, payload


def _rans(plane: Plane) -> bytes:
    """Encode a plane whose neighbouring bytes are independent as an entropy section."""
    contexts = np.zeros(plane.size, np.uint16)
    counted = entropy.count(plane, entropy.TOKEN_RULES[-1], contexts, 1)
    keys = kernels.contexts.ContextKeys.of(contexts, 1)
    return entropy.encode(plane, keys, counted, entropy.plan(counted.listed)).data


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


def encode_section(planes: Iterable[Plane], repeats: bool = False, before: bytes = b"") -> bytes:
    """Encode ``planes``, in order, behind ``before``; ``repeats`` holds for all of them."""
    return frames.section((encode_plane(plane, repeats) for plane in planes), before)


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
