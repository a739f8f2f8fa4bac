"""Entries of an index as values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Staged:
    """An index entry to be: ``stat`` marks a file that was just seen to be equal to ``oid``."""

    path: str
    oid: str
    mode: int = 0o100644
    skip: bool = False
    stat: os.stat_result | None = None
    intended: bool = False


@dataclass(frozen=True)
class Entry:
    """An index entry that was read, with its flags skip-worktree and, as of ``git add -N``, intent-to-add."""

    path: str
    oid: str
    mode: int
    stage: int
    skip: bool
    intended: bool = field(default=False, compare=False)
