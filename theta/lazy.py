"""An attribute that is computed when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - it is used like functools.cached_property
    """``functools.cached_property`` without its lock.

    Before Python 3.12 all objects of a class share that lock (python/cpython#87634): while a thread
    computes the attribute of one object, no other thread computes that of another.  Without it, two
    threads that ask for the same attribute of the same object at once may both compute it.
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
        """The value; it takes the place of this descriptor in ``instance``."""
        if instance is None:
            return self
        found = instance.__dict__[self._name] = self._compute(instance)
        return found
