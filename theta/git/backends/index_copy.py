"""An index that is edited in a copy, which is renamed over it while ``index.lock`` is held, as git does."""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from theta import _fs
from theta.errors import BusyError, DiskError
from theta.git.backends.index_entries import Entry

_LOCK_TRIES: Final = 20
_END: Final = 20
"""Bytes at the end of an index file that are, or are part of, the digest of the rest."""


class IndexCopy(ABC):
    """The lock of an index file, and its copy in ``scratch`` until the end of the ``with`` block.

    The index is written unless the block raises.  Raises :class:`BusyError` when another process holds the
    lock; without ``patient``, at once.
    """

    def __init__(self, path: Path, scratch: Path, *, patient: bool = True) -> None:
        self._path, self._lock = path, Path(f"{path}.lock")
        self._is_ready = False
        _take(self._lock, patient=patient)
        self._holds = True
        self._copy = scratch / _fs.own_temporary("index")
        try:
            _fs.make_dirs(scratch)
            _fs.remove(self._copy)
            if path.exists():
                _fs.copy(path, self._copy)
            self._load()
        except BaseException:
            self._clear()
            raise

    @abstractmethod
    def _load(self) -> None:
        """Read the copy."""

    @abstractmethod
    def _is_changed(self) -> bool:
        """Return whether the copy must be written."""

    @abstractmethod
    def _write(self) -> None:
        """Write the copy."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Yield all entries in git's order."""

    @abstractmethod
    def drop_conflict(self, path: str) -> None:
        """Drop the stages 1 to 3 of ``path``, if any."""

    def outside(self, directory: str) -> Iterator[Entry]:
        """Yield the entries that are not below ``directory``, where many may be."""
        return (entry for entry in self.entries() if not entry.path.startswith(directory + "/"))

    def paths_under(self, directory: str) -> dict[str, tuple[str, bool]]:
        """Return path -> (object id, skip-worktree flag) of the stage-0 entries below ``directory``."""
        prefix = directory + "/"
        return {e.path: (e.oid, e.skip) for e in self.entries() if e.stage == 0 and e.path.startswith(prefix)}

    def remove_conflicts_under(self, directory: str) -> None:
        """Drop the conflict stages of all paths below ``directory``."""
        prefix = directory + "/"
        for path in {e.path for e in self.entries() if e.stage and e.path.startswith(prefix)}:
            self.drop_conflict(path)

    def prepare(self) -> None:
        """Write what was edited into the lock file: all that is left for the end of the block is its name.

        Nothing is edited afterwards.
        """
        if self._is_changed():
            self._write()
            _fs.rename(self._copy, self._lock)
            self._is_ready = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._is_ready:
                self.prepare()
            if kind is None and self._is_ready:
                _fs.rename(self._lock, self._path)
                self._holds = False
        finally:
            self._clear()

    def _clear(self) -> None:
        """Remove what is left, each whether or not another can be removed.

        A lock that took the place of the index is there no more: one that is there is another process's.
        """
        with contextlib.ExitStack() as last:
            if self._holds:
                last.callback(_fs.remove, self._lock)
            for path in (Path(f"{self._copy}.lock"), self._copy):
                last.callback(_fs.remove, path)


def signature(path: Path) -> tuple[object, ...]:
    """Return the stat data of the index file and the digest at its end, which differ if it changed."""
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            file.seek(max(0, info.st_size - _END))
            return info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, file.read()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise DiskError(f"cannot read the index: {error}") from error


def _take(lock: Path, *, patient: bool) -> None:
    """Make the lock file of an index; raises :class:`BusyError` when another process has made it."""
    tries = _LOCK_TRIES if patient else 1
    for attempt in range(tries):
        if _fs.create_exclusive(lock):
            return
        if attempt + 1 < tries:
            time.sleep(0.05)
    raise BusyError(
        "another git process holds the index lock", hint=f"if none is running, remove {lock} and try again"
    )
