"""The names that git gives."""

from __future__ import annotations

import pygit2


def is_branch_name(name: str) -> bool:
    """Return whether a branch may have this name."""
    return bool(name) and pygit2.reference_is_valid_name(f"refs/heads/{name}")
