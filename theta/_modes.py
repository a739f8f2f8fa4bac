"""Modes of new files: what the umask allows, and what ``core.sharedRepository`` says of a repository."""

from __future__ import annotations

import os
from typing import Final


def _umask() -> int:
    mask = os.umask(0o022)  # there is no way to read it without setting it
    os.umask(mask)
    return mask


USER_UMASK: Final = _umask()
"""The umask that this process was started with."""

_umask_of_shared = USER_UMASK
_directories: set[str] = set()


def share(directory: str | os.PathLike[str], permission: int) -> None:
    """Let what is made below ``directory`` be shared.

    ``permission`` is git's: 0660 for a group, 0664 for all, which add to what the umask allows, or the
    exact one of files, negative.  libgit2 knows only the umask, so that of the process changes;
    files elsewhere, and programs, keep the one that the user gave.
    """
    global _umask_of_shared
    allowed = abs(permission) | (abs(permission) & 0o444) >> 2
    _umask_of_shared = 0o777 & ~allowed if permission < 0 else USER_UMASK & ~allowed
    _directories.add(os.path.realpath(directory) + os.sep)
    os.umask(_umask_of_shared)


def for_programs() -> int:
    """The umask for programs that this process starts; -1 for its own."""
    return USER_UMASK if _directories else -1


def is_shared(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` lies in the git directory of a shared repository."""
    return bool(_directories) and os.path.realpath(path).startswith(tuple(_directories))


def allowed(path: str | os.PathLike[str], mode: int) -> int:
    """What is left of ``mode`` for a new file or directory at ``path``."""
    return mode & ~(_umask_of_shared if is_shared(path) else USER_UMASK)
