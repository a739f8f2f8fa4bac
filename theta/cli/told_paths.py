"""Paths from the current directory, as commands take them there."""

from __future__ import annotations

from theta.cli import console
from theta.git.quoting import from_folder


def here(path: str) -> str:
    """Return ``path`` (from the root of the worktree) as a path from the current directory."""
    repo = console.repository
    return path if repo is None or repo.is_bare else from_folder(path, repo.folder("."))
