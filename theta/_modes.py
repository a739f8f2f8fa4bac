"""Modes of new files, by the umask and ``core.sharedRepository``."""

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
    """Share new files and directories below ``directory``.

    ``permission`` is git's: 0660 for a group and 0664 for all are added to the mode that the umask allows; a
    negative one is the exact mode of files.  libgit2 respects only the umask, so that of the process is
    changed.  Files elsewhere, and programs, get the user's umask.
    """
    global _umask_of_shared
    allowed = abs(permission) | (abs(permission) & 0o444) >> 2
    _umask_of_shared = 0o777 & ~allowed if permission < 0 else USER_UMASK & ~allowed
    _directories.add(os.path.realpath(directory) + os.sep)
    os.umask(_umask_of_shared)


def for_programs() -> int:
    """Return the umask for programs that this process starts; -1 if it was not changed."""
    return USER_UMASK if _directories else -1


def is_shared(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is in the git directory of a shared repository."""
    return bool(_directories) and os.path.realpath(path).startswith(tuple(_directories))


def allowed(path: str | os.PathLike[str], mode: int) -> int:
    """Return ``mode`` without the bits that the umask removes for a new file or directory at ``path``."""
    return mode & ~(_umask_of_shared if is_shared(path) else USER_UMASK)
