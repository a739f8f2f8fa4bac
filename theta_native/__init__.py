"""Compiled kernels of theta: pure functions on numpy arrays, no input or output.

Importing this package decides where numba keeps compiled code: a directory of the user's own,
mode 0700, outside every repository.  numba's cache is a set of pickles, so a directory that
another user can write to would let them run code in our process (CWE-502); where no safe one
can be had, kernels are compiled anew in each process instead.

numba takes half a second to import.  So kernels are compiled (or loaded) when they are first called,
and the modules that small tensors need have a numpy path for arrays of at most ``SMALL`` words.
"""

from __future__ import annotations

import functools
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

SMALL: Final = 1 << 16
"""Words up to which numpy is quick enough, so that numba need not be imported."""

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

watchers: Final[list[Callable[[], None]]] = []
"""Called whenever numba begins to compile, by the thread that waits for it; they must be quick."""


@functools.cache
def _watch_numba() -> None:
    """Have numba tell the watchers; what it loads from its cache is not compiled, and not told."""
    from numba.core import event

    class Telling(event.Listener):
        def on_start(self, event: Any) -> None:
            for told in list(watchers):
                told()

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Telling())  # type: ignore[no-untyped-call]


_LOCK: Final = threading.RLock()


class _Kernel:
    """A function that numba compiles on its first call: importing kernels imports no numba."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._compiled: Callable[..., Any] | None = None

    def compiled(self) -> Callable[..., Any]:
        """The compiled function; it takes the place of this object in its module."""
        with _LOCK:
            if self._compiled is None:
                import numba

                _watch_numba()
                self._compiled = numba.njit(cache=CACHED, nogil=True)(self._function)
                names = self._function.__globals__
                for name in self._function.__code__.co_names:
                    # numba knows its own functions only: those that this one calls come first.
                    if isinstance(called := names.get(name), _Kernel):
                        names[name] = called.compiled()
        return self._compiled

    def __call__(self, *args: Any) -> Any:
        return (self._compiled or self.compiled())(*args)


def kernel(function: _Function) -> _Function:
    """Compile ``function`` with numba on its first call, without the GIL, without fast-math.

    numba checks no bounds: callers validate every length and offset before a kernel runs
    (``NUMBA_BOUNDSCHECK=1`` turns the checks on for tests).
    """
    return cast(_Function, _Kernel(function))
