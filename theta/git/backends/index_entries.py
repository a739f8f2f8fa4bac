"""Entries of an index as values."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Staged:
    """An index entry to be: ``stat`` marks a file that was just seen to be equal to ``oid``."""

    path: str
    oid: str
    mode: int = 0o100644
    skip: bool = False
    stat: os.stat_result | None = None


@dataclass(frozen=True)
class Entry:
    """An index entry that was read; ``skip`` is the skip-worktree flag."""

    path: str
    oid: str
    mode: int
    stage: int
    skip: bool
