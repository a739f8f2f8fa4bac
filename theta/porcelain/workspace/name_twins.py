"""Files of a version that would be one file where a file system takes names in any case, as macOS's does."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from theta import _fs
from theta.errors import WouldOverwriteError


def require_none(paths: Iterable[str], folder: Path, scratch: Path | None = None) -> None:
    """Raise :class:`WouldOverwriteError` if two of ``paths`` name one file in ``folder``.

    Args:
        paths: the paths of files.
        folder: where they are to be.
        scratch: a directory of theta's on that file system, by default ``folder``.
    """
    twins = _twins(paths)
    if twins is not None and _takes_any_case(scratch or folder):
        raise WouldOverwriteError(
            f"{twins[0]} and {twins[1]} are one file in {folder}, whose file system takes names in any case",
            hint="name one of them as the path to write, or rename one in the repository",
        )


def _twins(paths: Iterable[str]) -> tuple[str, str] | None:
    """Return two paths that differ in case, or in the form of accents, alone; None when there are none."""
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if other != path:
            return other, path
    return None


def _takes_any_case(folder: Path) -> bool:
    with _fs.temporary_directory(f"{_fs.TEMPORARY}case_", within=folder) as place:
        return os.path.lexists(place.parent / place.name.swapcase())
