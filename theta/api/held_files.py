"""Files of the machine that a save takes as they are: held open, and watched for changes."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from theta import formats
from theta.errors import ChangedWhileReadError, NotFoundError, UsageError
from theta.formats import opaque
from theta.formats.layout import BytesSource, Source
from theta.store.files.file_source import FileSource

_PLAIN: Final = 4 << 20
"""Bytes of the largest file that is stored as text is; hosts refuse blobs over 10 MiB."""


class HeldFile:
    """A file that may be removed while it is read, as one of a folder that is rotated; not written to.

    Each read looks whether the file was written to since it was opened: by size and date, since to remove a
    file changes the rest of its stat data.
    """

    def __init__(self, path: Path) -> None:
        self._file = FileSource(path)
        weakref.finalize(self, self._file.close)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._file.size

    @property
    def name(self) -> str:
        """The name of the file in its folder."""
        return self._file.name

    def sibling(self, name: str) -> bytes | None:
        """Return the bytes of the file ``name`` beside it; None when it is not there, or large."""
        return self._file.sibling(name)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes; raises :class:`ChangedWhileReadError` if it was written to."""
        found = self._file.read(offset, length)
        now, then = self._file.stat_now(), self._file.stat
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise ChangedWhileReadError(f"{self._file.label} changed while it was saved; nothing was stored")
        return found


def hold(path: Path) -> Source | bytes:
    """Open the file at ``path`` to be stored; raises :class:`NotFoundError` if it is none."""
    return stored_as(HeldFile(path))


def in_folder(folder: Path) -> dict[str, Path]:
    """Return the files in ``folder`` and below, by their paths from there, sorted.

    A link to a file stands for the file.

    Raises:
        NotFoundError: there is no such folder.
        UsageError: it holds no file, or a link to a folder or to nothing, or what is neither file nor folder.
    """
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}")
    found = {path.relative_to(folder).as_posix(): path for path in _walked(folder)}
    if not found:
        raise UsageError(f"there is nothing to save in {folder}")
    return dict(sorted(found.items()))


def _walked(folder: Path) -> Iterator[Path]:
    """Yield the files in ``folder`` and below; raises for what would be left out."""
    for place, folders, names in os.walk(folder, onerror=_raise):
        for path in (Path(place, name) for name in folders):
            if path.is_symlink():
                raise UsageError(f"{path} is a link to a folder", hint="put the folder itself there")
        for path in (Path(place, name) for name in names):
            if not path.is_file():
                raise UsageError(f"{path} is no file, nor a link to one", hint="remove it to save the rest")
            yield path


def _raise(error: OSError) -> None:
    """Raise what ``os.walk`` would pass over: a folder that cannot be read."""
    raise NotFoundError(f"{error.filename} cannot be read: {error.strerror}") from error


def stored_as(source: Source) -> Source | bytes:
    """Return ``source`` if it is large or a reader finds tensors in it; the bytes of any other file."""
    if source.size > _PLAIN or formats.scan_or_opaque(source)[0].format != opaque.NAME:
        return source
    return source.data if isinstance(source, BytesSource) else source.read(0, source.size)
