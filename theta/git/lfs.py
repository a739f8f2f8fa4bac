"""Pointer files of Git LFS: small texts in place of files that are stored elsewhere.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, Protocol

from theta.errors import PointerError

MAX_BYTES: Final = 1024
"""The specification requires that a pointer is shorter than this."""

_VERSIONS: Final = (
    b"version https://git-lfs.github.com/spec/v1\n",
    b"version https://hawser.github.com/spec/v1\n",
)
FETCH: Final = "'git lfs pull' fetches the files that pointers stand for"


def refusal(path: str) -> PointerError:
    """Return the error that the file at ``path`` is a pointer."""
    return PointerError(
        f"{path} is a Git LFS pointer, not the file itself", hint=f"{FETCH}; then 'theta add {path}'"
    )


def is_pointer(data: bytes) -> bool:
    """Return whether ``data`` is a complete pointer."""
    return len(data) < MAX_BYTES and data.replace(b"\r\n", b"\n").startswith(_VERSIONS) and b"\noid " in data


class Readable(Protocol):
    """A file with random access."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``."""
        ...


def pointer_in(source: Readable) -> bytes | None:
    """Return the content of ``source`` if it is a pointer, otherwise None."""
    if source.size >= MAX_BYTES:
        return None
    data = source.read(0, source.size)
    return data if is_pointer(data) else None


def pointer_at(path: Path) -> bytes | None:
    """Return the content of the file at ``path`` if it is a pointer, otherwise None."""
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_size >= MAX_BYTES:
            return None
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES)
    except OSError:
        return None
    return data if is_pointer(data) else None
