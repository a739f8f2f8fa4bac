"""Single-threaded linear algebra.

The order of a BLAS's sums, and so its results, depend on its number of threads.  theta processes several
tensors at once, so more threads for one are not faster.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from theta.parallel import WhileInside


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


def _count() -> int:
    found = threads()
    return found[0]() if found else 1


def _set(count: int) -> None:
    if found := threads():
        found[1](count)


one_thread: Final = WhileInside(_count, _set, 1)
"""The context in which numpy's linear algebra uses one thread, if its BLAS allows that.

Several threads may be in it at the same time.
"""
