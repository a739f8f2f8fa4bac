"""Compiled kernels of theta: pure functions on numpy arrays, no input or output.

numba takes half a second to import.  So kernels are compiled (or loaded, see :mod:`theta_native._saved`)
when they are first called, and the modules that small tensors need have a numpy path for arrays of at
most ``SMALL`` words.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

SMALL: Final = 1 << 16
"""Words up to which numpy is quick enough, so that numba need not be imported."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

watchers: Final[list[Callable[[], None]]] = []
"""Called whenever numba begins to compile, by the thread that waits for it; they must be quick."""


@functools.cache
def _watch_numba() -> None:
    """Have numba tell the watchers; what it loads from its cache is not compiled, and not told."""
    from numba.core import event

    class Telling(event.Listener):
        def on_start(self, _: Any) -> None:
            for told in list(watchers):
                told()

        def on_end(self, _: Any) -> None:
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
        """The compiled function; it takes the place of this object in the modules that call it.

        Other threads see it when it is whole: all kernels that it calls are numba's functions by then.
        """
        with _LOCK:
            if self._compiled is None:
                self._replace_called()
                self._compiled = self._dispatcher()
        return self._compiled

    def _replace_called(self) -> None:
        """Put numba's functions in the place of the kernels that this one calls: numba knows no others."""
        names = self._function.__globals__
        for name in self._function.__code__.co_names:
            if isinstance(called := names.get(name), _Kernel):
                names[name] = called.compiled()

    def _dispatcher(self) -> Callable[..., Any]:
        import numba

        from theta_native._saved import Saved

        _watch_numba()
        dispatcher: Any = numba.njit(nogil=True)(self._function)
        dispatcher._cache = Saved(self._function)
        return cast(Callable[..., Any], dispatcher)

    def __call__(self, *args: Any) -> Any:
        return (self._compiled or self.compiled())(*args)


def kernel(function: _Function) -> _Function:
    """Compile ``function`` with numba on its first call, without the GIL, without fast-math.

    numba checks no bounds: callers validate every length and offset before a kernel runs
    (``NUMBA_BOUNDSCHECK=1`` turns the checks on for tests).
    """
    return cast(_Function, _Kernel(function))
