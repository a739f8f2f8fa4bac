"""Fresh memory for copies of arrays, which goes back to the system piece by piece."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from theta._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE: Final = 16 << 20
"""Bytes that go back at once, unless one array alone is larger."""
_SMALL: Final = 1 << 20
"""Bytes up to which the memory is that of Python, which keeps what is freed."""
_ALIGNMENT: Final = 64


def rooms(sizes: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield memory of each of ``sizes``; a piece goes back when nothing refers to its arrays.

    It is mapped in large pages, which come several times faster, and only when they are written to.

    Raises :class:`MemoryError` if the system has no more.
    """
    wanted = list(sizes)
    left, piece = sum(map(_aligned, wanted)), np.empty(0, np.uint8)
    for size in wanted:
        if _aligned(size) > piece.size:
            piece = _piece(max(_aligned(size), min(left, _PIECE)))
        yield piece[:size]
        piece, left = piece[_aligned(size) :], left - _aligned(size)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _piece(size: int) -> NDArray[np.uint8]:
    if size <= _SMALL:
        return np.empty(size, np.uint8)
    try:
        place = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for a copy of {size} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            place.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(place, np.uint8)
