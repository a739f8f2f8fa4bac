"""How this process keeps memory that it will want again.

glibc gives each thread a heap of its own, and returns large arrays to the system as soon as they are freed.
Chunks are worked on by arrays of a few megabytes that come and go: to have their pages anew, and cleared,
took a quarter of the time of a merge, and twice the memory.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

# malloc.h
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8

_KEPT: Final = 128 << 20
"""Bytes of free memory that are kept."""
_LARGE: Final = 32 << 20
"""Bytes of an array that the system is asked for, and that it gets back: glibc knows no more."""


def one_heap() -> None:
    """Let all threads share one heap, which keeps what is freed; for a process of our own, at its start."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _KEPT)):
            library.mallopt(option, value)
