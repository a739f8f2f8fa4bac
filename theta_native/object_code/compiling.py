"""numba, which compiles kernels or loads them from its cache."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import numba
from numba.core import event

from theta_native import _saved, warming


@functools.cache
def _watch_numba(told: Callable[[], None]) -> None:
    """Let numba call ``told`` when it compiles; loading from its cache does not count."""

    class Telling(event.Listener):
        def on_start(self, _: Any) -> None:
            told()

        def on_end(self, _: Any) -> None:
            pass

    event.register("numba:compile", Telling())  # type: ignore[no-untyped-call]


def dispatcher(
    function: Callable[..., Any], fastmath: frozenset[str], told: Callable[[], None]
) -> Callable[..., Any]:
    """Return ``function`` as numba compiles it, without the GIL; ``told`` is called when it does.

    ``fastmath`` are LLVM's flags of what arithmetic may become.
    """
    _watch_numba(told)
    njit: Any = numba.njit  # the stubs do not know no_cfunc_wrapper; nothing calls a kernel from C
    made: Any = njit(nogil=True, no_cfunc_wrapper=True, fastmath=set(fastmath) or False)(function)
    made._cache = _saved.Saved(function, warming.missed, told)
    return cast(Callable[..., Any], made)
