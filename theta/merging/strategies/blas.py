"""Linear algebra on one thread: OpenBLAS adds up differently with two."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

_LOCK: Final = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run numpy's linear algebra on one thread, where its OpenBLAS can be told so."""
    found = _threads()
    if found is None:
        yield
        return
    read, write = found
    with _LOCK:
        before = read()
        write(1)
        try:
            yield
        finally:
            write(before)


@cache
def _threads() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """The functions of the OpenBLAS that numpy's wheels carry; none with another library."""
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
