"""Small files that theta keeps for itself below ``.git/theta/``: a note that cannot be read is not there."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

from theta import _fs

_MOST: Final = 64 << 20


def read(path: Path) -> str | None:
    """The text of the note at ``path``; None where there is none, or anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            return file.read().decode() if stat.S_ISREG(info.st_mode) and info.st_size <= _MOST else None
    except (OSError, UnicodeDecodeError):
        return None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of the note at ``path``; empty where there is none, or anything else."""
    try:
        found = json.loads(read(path) or "null")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, text: str, *, durable: bool = False) -> None:
    """Write the note at ``path``, whatever is there; ``durable`` where losing it costs more than time."""
    directory(path.parent)
    _make_room(path)
    _fs.write_atomic(path, text.encode(), durable=durable)


def drop(path: Path) -> None:
    """Remove the note at ``path``, or whatever is there."""
    _make_room(path)
    _fs.remove(path)


def lock(path: Path, *, patience: float = 1.0, shared: bool = False) -> _fs.Lock:
    """Take the lock at ``path``; a directory that is there is none, and goes."""
    if path.is_dir():
        drop(path)
    return _fs.Lock(path, patience=patience, shared=shared)


def directory(path: Path) -> None:
    """Make the directory ``path`` for notes; what is there and is none goes."""
    if os.path.lexists(path) and not path.is_dir():
        _fs.remove(path)
    _fs.make_dirs(path)


def _make_room(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        _fs.remove_tree(path)
