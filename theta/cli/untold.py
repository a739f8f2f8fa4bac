"""New files that look like checkpoints: where nothing is tracked yet, or for Git LFS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.cli import console, differing
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import common
    from theta.porcelain.setup.claims import Claim
    from theta.porcelain.workspace import coverage
    from theta.porcelain.workspace.session import Session
else:
    common = Module("theta.cli.common")
    coverage = Module("theta.porcelain.workspace.coverage")

_LARGE: Final = 10_000_000
"""Size in bytes above which a file is looked at by those who know formats."""
_HEAD: Final = 512


def tell(paths: set[str]) -> None:
    """Warn of those of ``paths`` that look like checkpoints."""
    if not paths or console.quiet:
        return
    top = differing.top()
    found = [path for path in sorted(paths) if _is_binary(top / path)]
    if found and (here := common.session_or_none()) is not None:
        common.report_uncovered(here, coverage.uncovered(here, found))


def tell_of_lfs(session: Session, held: Mapping[str, Claim]) -> None:
    """Warn of new checkpoints that a line of attributes gives to Git LFS."""
    console.warn(coverage.to_lfs_line(session, held))


def _is_binary(place: Path) -> bool:
    """Return whether the file is large, or begins as no text does."""
    try:
        if place.is_symlink() or not place.is_file():
            return False
        with open(place, "rb") as file:
            return place.stat().st_size >= _LARGE or b"\0" in file.read(_HEAD)
    except OSError:
        return False
