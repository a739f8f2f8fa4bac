"""Refusing to follow committed symbolic links out of their repository."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from theta.errors import ThetaError, UsageError
from theta.git.repository import Repository

_LINK: Final = 0o120000


def refuse_leading_out(place: Path) -> None:
    """Raise :class:`UsageError` if a committed link in the path ``place`` leads out of its worktree.

    Links that are not committed, such as those of a download cache, are followed.
    """
    way = Path(os.path.abspath(place))
    if os.path.realpath(way) == str(way):
        return
    for step in (way, *way.parents):
        if step.is_symlink() and _leads_out(step):
            raise UsageError(f"{step} is a link of the repository that leads out of it, to {step.resolve()}")


def _leads_out(link: Path) -> bool:
    try:
        repo = Repository.discover(link.parent)
        root = repo.worktree.resolve()
    except ThetaError:
        return False
    here, target = link.parent.resolve() / link.name, link.resolve()
    if not here.is_relative_to(root) or (
        target.is_relative_to(root) and not target.is_relative_to(root / ".git")
    ):
        return False
    path = str(here.relative_to(root))
    return any(entry.path == path and entry.mode == _LINK for entry in repo.read_index())
