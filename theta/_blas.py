"""Linear algebra by one thread of the BLAS.

A BLAS adds in another order for another number of threads, so what is computed with its help
would depend on that number.  theta works on several tensors at once: more threads for one bring nothing.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final


@cache
def threads() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """The functions that read and set how many threads the OpenBLAS of numpy's wheels has.

    None with another library.
    """
    from numpy.linalg import _umath_linalg

    try:
        library = ctypes.CDLL(_umath_linalg.__file__)
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
    """While any thread is inside, the BLAS works with one thread; then with as many as before."""

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
"""A context in which numpy's linear algebra uses one thread, where its BLAS can be told so.

Any number of threads may be in it at once.
"""
