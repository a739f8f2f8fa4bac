"""The files of a worktree around a merge: those that it replaces, and those that it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from theta.formats.layout import Source

Outlet = Callable[[int, "bytes | memoryview"], None]
"""Takes bytes of one tensor, and the offset in it where they begin."""


class Departing(Source, Protocol):
    """A file that the result takes the place of."""

    def drop(self, offset: int, length: int) -> None:
        """Note that ``length`` bytes at ``offset`` will not be read again."""
        ...


class Draft(Protocol):
    """A file in the making; threads may write to it at once."""

    def put(self, offset: int, data: bytes | memoryview) -> None:
        """Write ``data`` at ``offset``."""
        ...

    def framed(self, skeleton: str) -> None:
        """Note that all literal bytes of this skeleton are written."""
        ...

    def done(self, name: str, digest: str) -> None:
        """Note that all of tensor ``name`` is written, and its digest."""
        ...
