"""Room on the disk: the one place where it is looked for, before any byte of a file is written."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import NoSpaceError
from theta.units import human

RESERVE: Final = 1 << 20
"""Bytes that are left free for what git writes, and for theta's own notes."""


def left(folder: Path) -> int:
    """Bytes that files in ``folder`` may take."""
    return max(_fs.free_space(folder) - RESERVE, 0)


def require(folder: Path, size: int, hint: str = "free some space and repeat the command") -> None:
    """Raise :class:`NoSpaceError` unless ``size`` bytes more fit into ``folder``."""
    if size > (free := left(folder)):
        raise NoSpaceError(f"{folder} has {human(free)} free, and {human(size)} are to be written", hint=hint)
