"""Protocols for the files of a worktree that a merge replaces and writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from theta.formats.layout import Source

Outlet = Callable[[int, "bytes | memoryview"], None]
"""Receives the offset in a tensor, and bytes from there on."""


class Departing(Source, Protocol):
    """A file that the result will replace."""

    def drop(self, offset: int, length: int) -> None:
        """Note that ``length`` bytes at ``offset`` will not be read again."""
        ...


class Draft(Protocol):
    """An unfinished file; threads may write to it concurrently."""

    def put(self, offset: int, data: bytes | memoryview) -> None:
        """Write ``data`` at ``offset``."""
        ...

    def framed(self, skeleton: str) -> None:
        """Note that all literal bytes of ``skeleton`` are written."""
        ...

    def done(self, name: str, digest: str) -> None:
        """Note that all bytes of tensor ``name`` are written, with their digest."""
        ...
