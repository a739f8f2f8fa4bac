"""Checking the free disk space before a file is written."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import NoSpaceError
from theta.units import human

RESERVE: Final = 1 << 20
"""The number of bytes to leave free for git's files and theta's notes."""


def left(folder: Path) -> int:
    """Return the number of bytes that files in ``folder`` may use."""
    return max(_fs.free_space(folder) - RESERVE, 0)


def require(folder: Path, size: int, hint: str = "free some space and repeat the command") -> None:
    """Raise :class:`NoSpaceError` unless ``size`` more bytes fit into ``folder``."""
    if size > (free := left(folder)):
        raise NoSpaceError(f"{folder} has {human(free)} free, and {human(size)} are to be written", hint=hint)
