"""Compiled kernels of theta: pure functions on numpy arrays, no input or output.

numba takes half a second to import.  So kernels are compiled (or loaded, see :mod:`theta_native._saved`)
when they are first called, and modules that are used for small tensors have a numpy path for arrays of at
most ``SMALL`` words.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from theta_native import _saved
from theta_native.object_code import linked

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL: Final = 1 << 16
"""The number of words up to which numpy is fast enough, so that numba is not imported."""
MANY: Final = 1 << 22
"""The number of words, in small arrays, from which on a kernel saves more than its loading takes."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

watchers: Final[list[Callable[[], None]]] = []
"""Functions that are called by the compiling thread when numba starts to compile; they must be fast."""


def tell_watchers() -> None:
    """Call the watchers: this process compiles a kernel or waits for one that another process compiles."""
    for told in list(watchers):
        told()


def unwritable(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that is not written to: a kernel would be compiled anew for arrays that may be."""
    view = array.view()
    view.flags.writeable = False
    return view


_LOCK: Final = threading.RLock()
_PATIENCE: Final = 64
"""The calls after which it is looked again whether a kernel is compiled that Python runs meanwhile."""


class Instructions:
    """A function that kernels call and that numba writes as machine instructions: ``name`` of ``module``.

    The module, which imports numba, is imported when a kernel that calls it is compiled.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *_args: Any) -> None:
        """Stand for the function in kernels; Python cannot call it."""
        raise TypeError(f"{self._name} is called by kernels only")

    def compiled(self) -> Callable[..., Any]:
        """Return what numba knows as the function."""
        found: Callable[..., Any] = getattr(importlib.import_module(self._module), self._name)
        return found


class _Kernel:
    """A function that numba compiles on its first call, so that importing kernels does not import numba."""

    def __init__(self, function: Callable[..., Any], fastmath: frozenset[str] = frozenset()) -> None:
        functools.update_wrapper(self, function)
        self._function, self._fastmath = function, fastmath
        self._compiled: Callable[..., Any] | None = None
        self._linked: dict[Hashable, linked.Called | None] = {}
        self._given: dict[Hashable, linked.Called] = {}

    def compiled(self) -> Callable[..., Any]:
        """Compile the function and the kernels that it calls, and return it.

        Other threads see it only when it is complete.
        """
        with _LOCK:
            if self._compiled is None:
                self._replace_called()
                from theta_native.object_code import compiling

                self._compiled = compiling.dispatcher(self._function, self._fastmath, tell_watchers)
        return self._compiled

    def _replace_called(self) -> None:
        """Replace what this kernel calls by numba's functions, which numba requires."""
        names = self._function.__globals__
        for name in self._function.__code__.co_names:
            if isinstance(called := names.get(name), (_Kernel, Instructions)):
                names[name] = called.compiled()

    def _link(self, args: tuple[Any, ...]) -> linked.Called | None:
        """Return the kernel for arguments like ``args`` as object code, if it is saved."""
        with _LOCK:
            return _saved.load(self._function, args)

    def is_saved(self, args: tuple[Any, ...]) -> bool:
        """Return whether a call with ``args`` imports no numba, and waits for nobody."""
        kinds, _ = linked.taken(args)
        if self._linked.get(kinds) is None:  # another process may have saved it since
            self._linked[kinds] = self._link(args)
        return self._linked[kinds] is not None

    def __call__(self, *args: Any) -> Any:
        kinds, leaves = linked.taken(args)
        try:
            found = self._linked[kinds]
        except KeyError:
            found = self._linked[kinds] = self._link(args)
        if found is not None:
            try:
                return found(leaves)
            except linked.FailedError:
                pass  # numba raises the exception of the kernel
        return self._unlinked(args)

    def _unlinked(self, args: tuple[Any, ...]) -> Any:
        """Call the kernel by numba."""
        return (self._compiled or self.compiled())(*args)

    def given(self, key: Hashable, leaves: list[Any], args: Callable[[], tuple[Any, ...]]) -> Any:
        """Call with ``args()``, which has these leaves; of equal keys the leaves have equal types."""
        found = self._given.get(key)
        if found is not None:
            with contextlib.suppress(linked.FailedError):
                return found(leaves)
        values = args()
        kinds, _ = linked.taken(values)
        result = self(*values)
        if (found := self._linked.get(kinds)) is not None:
            self._given[key] = found
        return result


class _Course(_Kernel):
    """A kernel that Python runs until another process has compiled it."""

    _calls = 0

    def _unlinked(self, args: tuple[Any, ...]) -> Any:
        self._calls += 1
        if self._calls % _PATIENCE == 0:  # it may have been compiled since
            self._linked.clear()
        return self._function(*args) if self._compiled is None else super()._unlinked(args)


def course(function: _Function) -> _Function:
    """Compile ``function`` as a :func:`kernel`, but wait for that only where it is part of another one.

    It calls kernels, and does next to nothing itself.  So it runs as well in Python, while each of those is
    compiled by itself: all in one takes three times as long, and processes cannot share it.
    """
    return cast(_Function, _Course(function))


def kernel(function: _Function) -> _Function:
    """Compile ``function`` with numba on its first call, without the GIL, without fast-math.

    numba checks no bounds: callers must validate every length and offset before a kernel runs
    (``NUMBA_BOUNDSCHECK=1`` enables the checks for tests).
    """
    return cast(_Function, _Kernel(function))


def in_any_order(function: _Function) -> _Function:
    """Compile ``function`` as a :func:`kernel` whose sums may be taken in any order, as a BLAS does.

    Products are added to them without being rounded first.  So results depend on the machine: they may not
    be what a reader has to find again.
    """
    return cast(_Function, _Kernel(function, frozenset({"contract", "nsz", "reassoc"})))


def given(
    function: Callable[..., Any], key: Hashable, leaves: list[Any], args: Callable[[], tuple[Any, ...]]
) -> Any:
    """Call the kernel ``function`` of small data, whose arguments would take longer to look at than its work.

    Args:
        function: the kernel.
        key: decides the types of all leaves: no two calls with equal keys have leaves of other types.
        leaves: arrays and Python's numbers, those of tuples one after the other.
        args: returns the arguments with these leaves.
    """
    return cast(_Kernel, function).given(key, leaves, args)


def is_saved(function: Callable[..., Any], *args: Any) -> bool:
    """Return whether the kernel ``function`` is compiled for ``args``; it is loaded if it is."""
    return cast(_Kernel, function).is_saved(args)


_taken: Final[dict[Callable[..., Any], int]] = {}
"""The words of small arrays that were taken without a kernel, until it pays."""
_paying: Final[set[Callable[..., Any]]] = set()


def pays(function: Callable[..., Any], size: int, args: Callable[[], tuple[Any, ...]]) -> bool:
    """Return whether the kernel ``function`` is to take ``size`` words, and not numpy, which does the same.

    It takes large arrays, and after :data:`MANY` words small ones too, where it is compiled for ``args()``.
    """
    if size > SMALL or function in _paying:
        return True
    count = _taken.get(function, 0) + size
    if count >= MANY:
        count = 0
        if is_saved(function, *args()):
            _paying.add(function)
    _taken[function] = count
    return False
