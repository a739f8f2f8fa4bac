"""Locks on kernels that are being compiled, so that processes share the work.

A claim locks one byte of a file in the cache directory.  The kernel of the system releases it when the
process ends.  A claim only saves work: a process that cannot take one, or waits too long, compiles.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import time
from pathlib import Path
from typing import Final

PATIENCE: Final = 5.0
"""The seconds to wait for another process, which may be stopped or have a low priority."""

_PAUSE: Final = 0.01


@functools.cache
def _file(place: Path) -> int:
    """Open the file of claims.  It stays open: closing it would release all claims of this process."""
    return os.open(place / "claims", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _byte(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little") >> 1


def take(place: Path, key: str) -> bool:
    """Claim ``key`` for this process; return False if another process has claimed it."""
    try:
        fcntl.lockf(_file(place), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(key))
    except BlockingIOError:
        return False
    except OSError:  # the directory is not writable, or the file system has no locks
        return True
    return True


def wait(place: Path, key: str) -> None:
    """Claim ``key``; wait for it at most :data:`PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not take(place, key) and time.monotonic() < end:
        time.sleep(_PAUSE)


def give_back(place: Path, key: str) -> None:
    """Release the claim on ``key``."""
    with contextlib.suppress(OSError):
        fcntl.lockf(_file(place), fcntl.LOCK_UN, 1, _byte(key))
