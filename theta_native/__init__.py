"""Compiled kernels of theta: pure functions on numpy arrays, no input or output.

Importing this package decides where numba keeps compiled code: a directory of the user's own,
mode 0700, outside every repository.  numba's cache is a set of pickles, so a directory that
another user can write to would let them run code in our process (CWE-502); where no safe one
can be had, kernels are compiled anew in each process instead.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _is_private(directory: Path) -> bool:
    """Whether ``directory`` is a real directory of this user that nobody else may write to."""
    info = os.lstat(directory)
    if not stat.S_ISDIR(info.st_mode):
        return False
    return not hasattr(os, "geteuid") or (info.st_uid == os.geteuid() and not info.st_mode & 0o077)


def _prepare_cache() -> bool:
    """Point numba at a private cache directory; false where there is none to be had."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return True
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        directory = base / "theta" / "numba"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(directory):
            return False
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return False
    os.environ["NUMBA_CACHE_DIR"] = str(directory)
    return True


CACHED: Final = _prepare_cache()


def kernel(function: _Function) -> _Function:
    """Compile ``function`` with numba on its first call, without the GIL, without fast-math.

    numba checks no bounds: callers validate every length and offset before a kernel runs
    (``NUMBA_BOUNDSCHECK=1`` turns the checks on for tests).
    """
    import numba

    return cast(_Function, numba.njit(cache=CACHED, nogil=True)(function))
