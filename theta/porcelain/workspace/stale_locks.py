"""Lock files that dead gits have left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from theta import _fs, _notes
from theta.errors import BusyError
from theta.git import processes, state_files
from theta.git.repository import Repository

USERS: Final = "users"
"""A lock that every changing command of any worktree shares, and so does what stores for another one."""
_LOCKS: Final = (
    *("*.lock", "logs/*.lock", "index.stash.*"),
    *(f"{name}/*.lock" for name in state_files.FOLDERS),
)
"""Locks of one worktree, and the temporary indexes of a stash."""
_EARLY: Final = 2.0
"""Seconds that a lock file may be older than the command; the clock of a file system may differ."""
_SHARED: Final = ("packed-refs.lock", "config.lock", "shallow.lock")
Between = tuple[float, float]
"""Two times in seconds since 1970."""


def remove(repo: Repository, began: float, ended: float) -> bool:
    """Remove the lock files of a git that died between two times, unless a git is at work here.

    They may be of that one.  Those that worktrees share are removed only if no other theta runs, and no git
    in any of them.

    Args:
        repo: the repository.
        began: when the command began that started the git, in seconds since 1970.
        ended: when it was dead; infinity is now.

    Returns:
        Whether some stay for that.
    """
    span = began - _EARLY, ended
    left = [_remove_stale(lock, span, _own_users(repo)) for lock in _own_locks(repo)]
    return any([*left, *_remove_shared(repo, span)])


def _own_locks(repo: Repository) -> list[Path]:
    found = [path for pattern in _LOCKS for path in repo.gitdir.glob(pattern)]
    return [path for path in found if path.name not in _SHARED]


def _shared_locks(repo: Repository) -> list[Path]:
    folders = [repo.commondir / "refs", repo.commondir / "logs"]
    found = [path for folder in folders for path in folder.rglob("*.lock")]
    return found + [repo.commondir / name for name in _SHARED]


def _remove_shared(repo: Repository, span: Between) -> list[bool]:
    """Remove the lock files that worktrees share; return of which ones that stay."""
    try:
        alone = _notes.lock(repo.shared / USERS, patience=0)
    except BusyError:
        return [_is_within(lock, span) for lock in _shared_locks(repo)]
    try:
        return [_remove_stale(lock, span, _users(repo)) for lock in _shared_locks(repo)]
    finally:
        alone.release()


def _own_users(repo: Repository) -> list[Path]:
    """Return the directories in which a git may work that holds a lock file of this worktree."""
    return [repo.gitdir, repo.commondir, *([] if repo.is_bare else [repo.worktree])]


def _users(repo: Repository) -> list[Path]:
    """Return those in which one may hold a lock file that the worktrees share."""
    return [*_own_users(repo), *state_files.worktrees(repo.commondir)]


def _remove_stale(lock: Path, span: Between, users: Sequence[Path]) -> bool:
    """Remove ``lock`` if it is of ``span``, nobody has it open, and no git works in one of ``users``.

    Returns whether it may be one of the dead and stays.
    """
    if not _is_within(lock, span):
        return False
    if processes.gits_in(*users):
        return True
    with contextlib.suppress(FileNotFoundError):
        if processes.is_open(lock):
            return True
        _fs.remove(lock)
    return False


def _is_within(lock: Path, span: Between) -> bool:
    """Return whether ``lock`` exists and was created in ``span``."""
    try:
        return span[0] <= os.stat(lock).st_mtime <= span[1]
    except FileNotFoundError:
        return False
