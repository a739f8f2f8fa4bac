"""Attributes that are computed, and modules that are imported, on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - it is used like functools.cached_property
    """``functools.cached_property`` without its lock.

    Before Python 3.12 all objects of a class share that lock (python/cpython#87634): while a thread
    computes the attribute of one object, no other thread can compute that of another.  Without it, two
    threads that access an attribute of an object at the same time may both compute it.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> lazy[T]: ...

    @overload
    def __get__(self, instance: object, owner: type[Any]) -> T: ...

    def __get__(self, instance: object | None, owner: type[Any]) -> lazy[T] | T:
        """Return the value, after storing it in ``instance``, where it overrides this descriptor."""
        if instance is None:
            return self
        found = instance.__dict__[self._name] = self._compute(instance)
        return found


def imported(name: str) -> Any:
    """Return module ``name`` if this process has imported it to its end; None if another thread is at it."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


class Module(ModuleType):
    """A module that is imported when one of its names is first used.

    It is defined at the top of the module that uses it, in the ``else`` of ``if TYPE_CHECKING: import ...``.
    Unlike that of ``importlib.util.LazyLoader`` it is not in ``sys.modules``: others import the real one.
    """

    def __getattr__(self, name: str) -> Any:
        """Return ``name`` of the real module, and store it, so that this runs once for each name."""
        found = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, found)
        return found
