"""A checkpoint file in the worktree, read in pieces and watched for changes."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from theta import _fs
from theta.errors import ChangedWhileReadError, FormatError, NotFoundError, ThetaError
from theta.git.links import refuse_leading_out

_MAX_SIBLING: Final = 256 << 20


@dataclass(frozen=True)
class Identity:
    """The stat data of a file that differ when the file was written to.

    ctime cannot be set by a program, so a rewrite that restores mtime and size still shows.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, info: os.stat_result) -> Identity:
        """Return the identity that ``info`` describes."""
        return cls(info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev)

    def is_racy(self, seen_ns: int) -> bool:
        """Return whether a write after ``seen_ns`` may leave it as it is, within one tick of the clock."""
        return self.certain_from > seen_ns

    @property
    def certain_from(self) -> int:
        """The time, in nanoseconds, from which a write makes another identity."""
        return _fs.certain_from(self.mtime_ns, self.ctime_ns)


class FileSource:
    """Random access to one regular file; reads copy, so nothing is mapped or shared.

    Mapping would count every page as resident memory and turn a truncation into SIGBUS.
    """

    def __init__(self, path: Path, label: str | None = None) -> None:
        self.path = path
        self.label = label or str(path)
        refuse_leading_out(path)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.label}: no such file") from error
        except OSError as error:
            raise _fs.as_theta_error(error, self.label) from error
        self.stat = os.fstat(self._fd)
        if not stat.S_ISREG(self.stat.st_mode):
            os.close(self._fd)
            raise NotFoundError(f"{self.label} is not a regular file")

    @property
    def size(self) -> int:
        """Length in bytes when it was opened."""
        return self.stat.st_size

    @property
    def reachable(self) -> Path:
        """A path of the file for other processes: on this machine only, if another file took its place."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), self.stat):
                return self.path.absolute()
        return Path(f"/proc/{os.getpid()}/fd/{self._fd}")

    @cached_property
    def identity(self) -> Identity:
        """The identity of the file when it was opened."""
        return Identity.of(self.stat)

    @property
    def name(self) -> str:
        """The name of the file in its folder."""
        return self.path.name

    def sibling(self, name: str) -> bytes | None:
        """Return the bytes of the file ``name`` beside it; None when it is not there, or over 256 MiB."""
        try:
            with FileSource(self.path.with_name(name)) as source:
                return source.read(0, source.size) if source.size <= _MAX_SIBLING else None
        except ThetaError:
            return None

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``.

        Raises :class:`FormatError` outside of the file and :class:`ChangedWhileReadError` if
        it has become shorter.
        """
        self._refuse_outside(offset, length)
        with _fs.translated(self.label):
            found = _fs.read_at(self._fd, length, offset)
        if len(found) < length:
            raise self._shorter()
        return found

    def read_into(self, offset: int, room: memoryview) -> None:
        """Fill ``room`` with the bytes from ``offset`` on; raises as :meth:`read`."""
        self._refuse_outside(offset, len(room))
        with _fs.translated(self.label):
            length = _fs.read_into(self._fd, room, offset)
        if length < len(room):
            raise self._shorter()

    def _refuse_outside(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(f"{self.label}: {length} bytes at {offset} are not in its {self.size} bytes")

    def _shorter(self) -> ThetaError:
        return ChangedWhileReadError(f"{self.label} became shorter while it was read; nothing was stored")

    def copy_to(self, file: _fs.AtomicFile, start: int, offset: int, length: int) -> None:
        """Copy ``length`` bytes from ``start`` of this file to ``offset`` of ``file``."""
        file.copy(self._fd, start, offset, length)

    def is_settled(self) -> bool:
        """Return whether a write from now on shows in :attr:`identity`."""
        return not self.identity.is_racy(time.time_ns())

    def was_written(self) -> bool:
        """Return whether the file may be another than when it was opened (see :meth:`is_settled`)."""
        return Identity.of(self.stat_now()) != self.identity

    def stat_now(self) -> os.stat_result:
        """Return the stat data of the file that was opened, wherever it is now."""
        return os.fstat(self._fd)

    def drop(self, offset: int, length: int) -> None:
        """Let the system forget these bytes: the file is going to be replaced, and they were read.

        The pages that it frees are those that the new file is written to, and need not be had anew: on
        virtual machines a fresh page costs ten times what writing it does.
        """
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def verify_unchanged(self) -> None:
        """Raise :class:`ChangedWhileReadError` unless the path still holds the file as opened."""
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise ChangedWhileReadError(
                f"{self.label} disappeared while it was read; nothing was stored"
            ) from error
        if Identity.of(now) != self.identity:
            raise ChangedWhileReadError(
                f"{self.label} changed while it was read; nothing was stored",
                hint="repeat when nothing writes to it",
            )

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
