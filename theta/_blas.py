"""Single-threaded linear algebra.

The order of a BLAS's sums, and so its results, depend on its number of threads.  theta processes several
tensors at once, so more threads for one are not faster.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final


@cache
def threads() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """Return get and set functions for the threads of numpy's bundled OpenBLAS; None with another library."""
    import numpy as np  # the whole first: another thread may be at it

    try:
        library = ctypes.CDLL(np.linalg._umath_linalg.__file__)
    except OSError:
        return None
    for prefix in ("scipy_openblas", "openblas"):
        for suffix in ("64_", ""):
            try:
                return (
                    getattr(library, f"{prefix}_get_num_threads{suffix}"),
                    getattr(library, f"{prefix}_set_num_threads{suffix}"),
                )
            except AttributeError:
                continue
    return None


class _OneThread:
    """A reentrant context that sets the BLAS to one thread, and restores the number at the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 1

    def __enter__(self) -> None:
        found = threads()
        with self._lock:
            if found and not self._inside:
                self._before = found[0]()
                found[1](1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        found = threads()
        with self._lock:
            self._inside -= 1
            if found and not self._inside:
                found[1](self._before)


one_thread: Final = _OneThread()
"""The context in which numpy's linear algebra uses one thread, if its BLAS allows that.

Several threads may be in it at the same time.
"""
