"""Compiled kernels of theta: pure functions on numpy arrays, no input or output.

numba takes half a second to import.  So kernels are compiled (or loaded, see :mod:`theta_native._saved`)
when they are first called, and modules that are used for small tensors have a numpy path for arrays of at
most ``SMALL`` words.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

SMALL: Final = 1 << 16
"""The number of words up to which numpy is fast enough, so that numba is not imported."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

watchers: Final[list[Callable[[], None]]] = []
"""Functions that are called by the compiling thread when numba starts to compile; they must be fast."""


def tell_watchers() -> None:
    """Call the watchers: this process compiles a kernel or waits for one that another process compiles."""
    for told in list(watchers):
        told()


@functools.cache
def _watch_numba() -> None:
    """Let numba call the watchers when it compiles; loading from its cache does not count."""
    from numba.core import event

    class Telling(event.Listener):
        def on_start(self, _: Any) -> None:
            tell_watchers()

        def on_end(self, _: Any) -> None:
            pass

    event.register("numba:compile", Telling())  # type: ignore[no-untyped-call]


_LOCK: Final = threading.RLock()


class _Kernel:
    """A function that numba compiles on its first call, so that importing kernels does not import numba."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._compiled: Callable[..., Any] | None = None

    def compiled(self) -> Callable[..., Any]:
        """Compile the function and the kernels that it calls, and return it.

        Other threads see it only when it is complete.
        """
        with _LOCK:
            if self._compiled is None:
                self._replace_called()
                self._compiled = self._dispatcher()
        return self._compiled

    def _replace_called(self) -> None:
        """Replace the kernels that this one calls by numba's functions, which numba requires."""
        names = self._function.__globals__
        for name in self._function.__code__.co_names:
            if isinstance(called := names.get(name), _Kernel):
                names[name] = called.compiled()

    def _dispatcher(self) -> Callable[..., Any]:
        import numba

        from theta_native import _saved, warming

        _watch_numba()
        njit: Any = numba.njit  # the stubs do not know no_cfunc_wrapper; nothing calls a kernel from C
        dispatcher: Any = njit(nogil=True, no_cfunc_wrapper=True)(self._function)
        dispatcher._cache = _saved.Saved(self._function, warming.missed, tell_watchers)
        return cast(Callable[..., Any], dispatcher)

    def __call__(self, *args: Any) -> Any:
        return (self._compiled or self.compiled())(*args)


def kernel(function: _Function) -> _Function:
    """Compile ``function`` with numba on its first call, without the GIL, without fast-math.

    numba checks no bounds: callers must validate every length and offset before a kernel runs
    (``NUMBA_BOUNDSCHECK=1`` enables the checks for tests).
    """
    return cast(_Function, _Kernel(function))
