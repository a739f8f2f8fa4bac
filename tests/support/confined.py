"""Commands that may not do what root may, and file systems that are small or read-only.

Root passes every check of permissions.  ``POWERLESS`` takes that from a command: its user is root still,
to whom rights of files apply as to anyone.  So a test that runs as root, as CI does, sees what users see,
without a second user who would need a way to this Python.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

IS_ROOT: Final = os.geteuid() == 0

POWERLESS: Final = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown,-fsetid"] if IS_ROOT else []
)
"""Before a command: the user who owns all that tests make, without root's powers."""

READ_ONLY_MACHINE: Final = [
    *("unshare", "--mount", "sh", "-c"),
    'for d in / /tmp /var/tmp /dev/shm "${TMPDIR:-/tmp}"; do'
    ' mount --bind "$d" "$d" && mount -o remount,bind,ro "$d" || exit 99; done; cd /; exec "$@"',
    "sh",
]
"""Before a command, as root: no file can be written anywhere, not even a temporary one."""

as_root = pytest.mark.skipif(not IS_ROOT, reason="makes mounts or files of another user; CI runs as root")


@contextlib.contextmanager
def tmpfs(place: Path, size: str = "64m") -> Iterator[Path]:
    """A file system of ``size`` bytes at ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    with _mounted(place, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)):
        yield place


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[Path]:
    """Directory ``place`` as it is on a read-only mount."""
    with _mounted(place, "--bind", str(place), str(place)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        yield place


@contextlib.contextmanager
def _mounted(place: Path, *args: str) -> Iterator[None]:
    subprocess.run(["mount", *args], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
