"""Small files of theta below ``.git/theta/``; one that cannot be read counts as missing."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

from theta import _fs

_MOST: Final = 64 << 20


def read(path: Path) -> str | None:
    """Return the text of the note at ``path``; None when it is missing or not a text file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            return file.read().decode() if stat.S_ISREG(info.st_mode) and info.st_size <= _MOST else None
    except (OSError, UnicodeDecodeError):
        return None


def written(path: Path) -> float:
    """Return the time at which the note at ``path`` was written, in seconds since 1970; 0 if missing."""
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the note at ``path``; empty if it is missing or something else."""
    try:
        found = json.loads(read(path) or "null")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, text: str, *, durable: bool = False, secret: bool = False) -> None:
    """Write the note at ``path``, replacing anything there.

    It is ``durable`` if losing it loses data; nobody but its owner may read a ``secret`` one.
    """
    directory(path.parent)
    _make_room(path)
    _fs.write_atomic(path, text.encode(), 0o600 if secret else 0o666, durable=durable)


def drop(path: Path) -> None:
    """Remove the note, or anything else, at ``path``."""
    _make_room(path)
    _fs.remove(path)


def lock(path: Path, *, patience: float = 1.0, shared: bool = False) -> _fs.Lock:
    """Take the lock at ``path``; a directory there is removed."""
    if path.is_dir():
        drop(path)
    return _fs.Lock(path, patience=patience, shared=shared)


def directory(path: Path) -> None:
    """Create the directory ``path`` for notes; anything else there is removed."""
    if os.path.lexists(path) and not path.is_dir():
        _fs.remove(path)
    _fs.make_dirs(path)


def _make_room(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        _fs.remove_tree(path)
