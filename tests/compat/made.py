"""States of a repository that many tests begin with: each is made once, and copied after that.

A plain ``git commit`` starts a process for each hook.  A copy of what it leaves costs a twentieth of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.compat.story import commit
from tests.support import Repo

T = TypeVar("T")

_OF_A_COPY: Final = ("index", "undo-index", "stat-cache.json", "resync")
"""Files about the times of other files and about processes, which differ in each copy."""
_OF_A_TEST: Final = "PYTEST_CURRENT_TEST"


@dataclass(frozen=True)
class Made:
    """A copy of the repository after a step, and what the step returned."""

    repo: Repo
    returned: Any


_made: dict[tuple[str, ...], Made] = {}


def once(repo: Repo, step: Callable[..., T], *args: str) -> T:
    """Return ``step(repo, *args)``; where it ran on an equal repository before, put a copy in its place.

    The step must act on nothing but the repository, and its result must not name the repository's place.
    """
    key = (_fingerprint(repo), step.__module__, step.__qualname__, *args)
    if found := _made.get(key):
        shutil.rmtree(repo.path)
        shutil.copytree(found.repo.path, repo.path, symlinks=True)
        repo.ticks = found.repo.ticks
        repo.theta("status")
        repo.ticks = found.repo.ticks
        returned: T = found.returned
        return returned
    returned = step(repo, *args)
    place = Path(tempfile.mkdtemp(prefix="made-", dir=Path.home())) / "repo"
    _made[key] = Made(repo.copy(place), returned)
    return returned


def diverged(repo: Repo, ours: str, theirs: str) -> tuple[str, str]:
    """Branches main and side that changed tensors ``ours`` and ``theirs``; main is checked out.

    Returns the sha256 of both files.
    """
    return once(repo, _diverge, ours, theirs)


def _diverge(repo: Repo, ours: str, theirs: str) -> tuple[str, str]:
    repo.git("checkout", "-q", "-b", "side")
    on_side = commit(repo, theirs, 2.0)
    repo.git("checkout", "-q", "main")
    return commit(repo, ours, 1.0), on_side


def _fingerprint(repo: Repo) -> str:
    """Digest the clock, the environment and the files; of objects, their names."""
    digest = hashlib.sha256(repr((repo.ticks, repo.afresh)).encode())
    digest.update(repr(sorted(item for item in os.environ.items() if item[0] != _OF_A_TEST)).encode())
    for path in sorted(repo.path.rglob("*")):
        if path.name in _OF_A_COPY:
            continue
        digest.update(os.fsencode(path.relative_to(repo.path)) + b"\0")
        if path.is_file() and "objects" not in path.parts:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
