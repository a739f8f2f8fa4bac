"""Byte planes: plane ``k`` of an array of words has byte ``k`` (0 = lowest) of every word.

Entropy coders work on bytes, and the bytes of a float differ: the exponent can be compressed, the low
mantissa is noise.  Floats are first rotated left by one bit, so that the sign becomes the lowest bit and the
top byte of a bf16 or f32 is its exponent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theta_native import SMALL, kernel, pays, unwritable

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint8, uint16, uint32 or uint64."""

Plane = NDArray[np.uint8]
Planes = NDArray[np.uint8]
"""Bytes, shape ``(itemsize, size)``: row ``k`` is plane ``k``."""


@kernel
def _split16(words: Words, turn: np.uint32, planes: Planes) -> None:
    for i in range(words.size):
        x = np.uint32(words[i])
        x = (x << turn) | ((x >> np.uint32(15)) & turn)
        planes[0, i] = np.uint8(x)
        planes[1, i] = np.uint8(x >> np.uint32(8))


@kernel
def _join16(lows: Plane, highs: Plane, turn: np.uint32, words: Words) -> None:
    for i in range(words.size):
        x = np.uint32(lows[i]) | (np.uint32(highs[i]) << np.uint32(8))
        words[i] = np.uint16((x >> turn) | ((x & turn) << np.uint32(15)))


@kernel
def _split32(words: Words, turn: np.uint32, planes: Planes) -> None:
    for i in range(words.size):
        x = words[i]
        x = (x << turn) | ((x >> np.uint32(31)) & turn)
        planes[0, i] = np.uint8(x)
        planes[1, i] = np.uint8(x >> np.uint32(8))
        planes[2, i] = np.uint8(x >> np.uint32(16))
        planes[3, i] = np.uint8(x >> np.uint32(24))


@kernel
def _join32(first: Plane, second: Plane, third: Plane, fourth: Plane, turn: np.uint32, words: Words) -> None:
    for i in range(words.size):
        low = np.uint32(first[i]) | (np.uint32(second[i]) << np.uint32(8))
        high = np.uint32(third[i]) | (np.uint32(fourth[i]) << np.uint32(8))
        x = low | (high << np.uint32(16))
        words[i] = (x >> turn) | ((x & turn) << np.uint32(31))


@kernel
def _split64(words: Words, turn: np.uint64, planes: Planes) -> None:
    for i in range(words.size):
        x = words[i]
        x = (x << turn) | ((x >> np.uint64(63)) & turn)
        for k in range(8):
            planes[k, i] = np.uint8(x >> np.uint64(8 * k))


@kernel
def _join64(planes: Planes, turn: np.uint64, words: Words) -> None:
    for i in range(words.size):
        x = np.uint64(0)
        for k in range(8):
            x |= np.uint64(planes[k, i]) << np.uint64(8 * k)
        words[i] = (x >> turn) | ((x & turn) << np.uint64(63))


def _split_by_numpy(words: Words, rotate: bool) -> Planes:
    width = words.dtype.itemsize
    if rotate and width == 2:
        return np.stack(
            [
                (words << np.uint16(1) | words >> np.uint16(15)).astype(np.uint8),
                (words >> np.uint16(7)).astype(np.uint8),
            ]
        )
    if rotate:
        words = (words << words.dtype.type(1)) | (words >> words.dtype.type(8 * width - 1))
    planes = np.empty((width, words.size), np.uint8)
    for k in range(width):  # plane by plane: numpy transposes bytes one at a time
        planes[k] = words >> words.dtype.type(8 * k)
    return planes


def _join_by_numpy(planes: Sequence[Plane], rotate: bool) -> Words:
    width = len(planes)
    words: Words = planes[width - 1].astype(f"<u{width}")
    for k in range(width - 2, -1, -1):
        words <<= words.dtype.type(8)
        words |= planes[k]
    if rotate:
        words = (words >> words.dtype.type(1)) | (words << words.dtype.type(8 * width - 1))
    return words


def _split_arguments(words: Words, rotate: bool) -> tuple[Words, Any, Planes]:
    width = words.dtype.itemsize
    turn = np.uint64(rotate) if width == 8 else np.uint32(rotate)
    return unwritable(words), turn, np.empty((width, words.size), np.uint8)


_SPLITS: Final[dict[int, Callable[..., None]]] = {2: _split16, 4: _split32, 8: _split64}


def _split_by_kernel(words: Words, rotate: bool) -> Planes:
    arguments = _split_arguments(words, rotate)
    _SPLITS[words.dtype.itemsize](*arguments)
    return arguments[-1]


def _join_by_kernel(planes: Sequence[Plane], rotate: bool, out: Words | None) -> Words:
    width = len(planes)
    words: Words = np.empty(planes[0].size, f"<u{width}") if out is None else out
    if width == 2:
        low, high = map(unwritable, planes)
        _join16(low, high, np.uint32(rotate), words)
    elif width == 4:
        first, second, third, fourth = map(unwritable, planes)
        _join32(first, second, third, fourth, np.uint32(rotate), words)
    else:
        _join64(np.stack(planes), np.uint64(rotate), words)
    return words


def split(words: Words, rotate: bool) -> Planes:
    """Return the byte planes of ``words``, shape ``(itemsize, size)``.

    ``rotate`` first rotates every word left by one bit; it is ignored for 8-bit words.
    """
    if words.dtype.itemsize == 1:
        return words.view(np.uint8).reshape(1, words.size)
    kernel_pays = pays(_SPLITS[words.dtype.itemsize], words.size, lambda: _split_arguments(words, rotate))
    return (_split_by_kernel if kernel_pays else _split_by_numpy)(words, rotate)


def join(planes: Sequence[Plane], rotate: bool, out: Words | None = None) -> Words:
    """Return the words whose byte planes these are: the inverse of :func:`split`.

    They are in ``out``, an array of their size and dtype, if it is given.
    """
    if len(planes) > 1 and planes[0].size > SMALL:
        return _join_by_kernel(planes, rotate, out)
    words = _join_by_numpy(planes, rotate) if len(planes) > 1 else planes[0]
    if out is None:
        return words if len(planes) > 1 else words.copy()
    out[:] = words
    return out
