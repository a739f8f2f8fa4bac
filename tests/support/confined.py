"""Running commands without root's capabilities, and on file systems that are small or read-only.

Root passes every check of permissions.  A command after ``POWERLESS`` still runs as root, but file
permissions apply to it.  So tests that run as root, as in CI, see what users see, without a second user, who
would need access to this Python.
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
"""The prefix of a command that runs it as the owner of all test files, without root's capabilities."""

READ_ONLY_MACHINE: Final = [
    *("unshare", "--mount", "sh", "-c"),
    'for d in / /tmp /var/tmp /dev/shm "${TMPDIR:-/tmp}"; do'
    ' mount --bind "$d" "$d" && mount -o remount,bind,ro "$d" || exit 99; done; cd /; exec "$@"',
    "sh",
]
"""The prefix of a command, run by root, that makes all file systems read-only, those for temporaries too."""

as_root = pytest.mark.skipif(not IS_ROOT, reason="makes mounts or files of another user; CI runs as root")


@contextlib.contextmanager
def tmpfs(place: Path, size: str = "64m") -> Iterator[Path]:
    """Mount a file system of ``size`` bytes at ``place`` during the block."""
    place.mkdir(parents=True, exist_ok=True)
    with _mounted(place, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)):
        yield place


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[Path]:
    """Make the directory ``place`` a read-only mount during the block."""
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
