"""Folders for temporary files that commands left which were killed."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import ThetaError
from theta.git import processes

_NAME: Final = re.compile(r"theta-[a-z]+-(?P<pid>[0-9]{1,10})_(?P<machine>[0-9a-f]{8})_[^/]+")


def folders() -> Iterator[Path]:
    """Yield the folders of this user's processes on this machine that ended, in the place for such files."""
    for path in _fs.temporary_place().glob("theta-*"):
        name = _NAME.fullmatch(path.name)
        is_of_here = name is not None and name["machine"] == _fs.machine() and _is_own_folder(path)
        if name is not None and is_of_here and not processes.exists(int(name["pid"])):
            yield path


def remove() -> None:
    """Remove these folders; one that cannot be removed stays."""
    for path in folders():
        with contextlib.suppress(ThetaError):
            _fs.remove_tree(path)


def _is_own_folder(path: Path) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
