"""Writing to disk.  No other module does it.

This module is the one place for durability (fsync before rename, then the directory), for safe paths in a
worktree, for turning ``OSError`` into a theta error, and for fault injection: every operation that changes
the disk calls :func:`_step`, where a test can stop the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import io
import os
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TextIO

from theta import _modes
from theta.errors import BusyError, DiskError, NoSpaceError, ThetaError, WouldOverwriteError
from theta.lazy import Module
from theta.units import portions

if TYPE_CHECKING:
    import tempfile
    from concurrent.futures import Future
else:
    tempfile = Module("tempfile")

_NOTHING: Final = 128 << 10
TEMPORARY: Final = "tmp_theta_"
"""The prefix of the names of temporary files; the id of the process that made them follows."""

Buffer = bytes | bytearray | memoryview

on_step: Callable[[str, str], None] | None = None
"""Called before each change of the disk with the operation and the path (fault injection)."""


def _step(operation: str, path: str | Path) -> None:
    if on_step is not None:
        on_step(operation, str(path))


@contextlib.contextmanager
def translated(path: str | Path) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into :class:`NoSpaceError` or :class:`DiskError`."""
    try:
        yield
    except OSError as error:
        raise as_theta_error(error, path) from error


def as_theta_error(error: OSError, path: str | Path) -> ThetaError:
    """Return the theta error for ``error`` at ``path``."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpaceError(
            f"no space to write {path}: {reason}", hint="free some space and repeat the command"
        )
    return DiskError(f"{path}: {reason}")


def write_error(error: Exception, path: str | Path) -> ThetaError:
    """Return the theta error for an error of libgit2 at ``path``, which has a message but no errno."""
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(number) in text:
            return as_theta_error(OSError(number, os.strerror(number)), path)
    return DiskError(f"cannot write {path}: {text}")


def fsync_dir(path: str | Path) -> None:
    """Make the names in directory ``path`` durable, if the file system supports that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # network file systems return EINVAL, and have no alternative
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def sync(path: str | Path) -> None:
    """Make durable what is at ``path``, or that nothing is there any more."""
    _step("fsync", path)
    place = Path(path)
    with translated(path):
        if place.is_file() and not place.is_symlink():
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if place.parent.is_dir():
            fsync_dir(place.parent)


def make_dirs(path: str | Path) -> None:
    """Create directory ``path`` and its parents."""
    missing = [place for place in (Path(path), *Path(path).parents) if not os.path.isdir(place)]
    for place in reversed(missing):
        _step("mkdir", place)
        with translated(place):
            _make_dir(place)


def _make_dir(place: Path) -> None:
    mode = _modes.allowed(place, 0o777)
    try:
        os.mkdir(place, mode)
    except FileExistsError:
        if not os.path.isdir(place):
            raise
    else:
        if _modes.is_shared(place):  # files of others in it get the group of the repository
            os.chmod(place, mode | stat.S_ISGID)


def remove(path: str | Path) -> None:
    """Remove file ``path`` if it exists."""
    _step("unlink", path)
    with translated(path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def touch(path: str | Path, date: int | None = None) -> os.stat_result | None:
    """Set the times of file ``path`` and return its new stat data; None when that fails.

    ``date`` is in nanoseconds since 1970; None for now.
    """
    _step("touch", path)
    try:
        if date is None:
            os.utime(path, follow_symlinks=False)
        else:
            os.utime(path, ns=(date, date), follow_symlinks=False)
        return os.lstat(path)
    except (OSError, NotImplementedError):
        return None


def remove_empty_dir(path: str | Path) -> None:
    """Remove directory ``path`` if it is empty."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


def remove_tree(path: str | Path) -> None:
    """Remove a directory and its content (used only for theta's own temporary directories)."""
    _step("rmtree", path)
    shutil.rmtree(path, ignore_errors=True)


def rename(source: str | Path, target: str | Path) -> None:
    """Rename ``source`` over ``target`` and make the new name durable."""
    _step("rename", target)
    with translated(target):
        os.replace(source, target)
        fsync_dir(Path(target).parent)


def write_atomic(path: str | Path, data: Buffer, mode: int = 0o666, *, durable: bool = True) -> None:
    """Write ``data`` to ``path`` so that a reader sees either the old or the new content."""
    with AtomicFile(path, mode=mode, durable=durable) as file:
        file.write(data)


class AtomicFile:
    """A file that appears at ``path`` when the ``with`` block ends without an error.

    It is written to a temporary file in ``temp_dir`` (by default the directory of ``path``), which must be on
    the same file system.  A killed process may leave the temporary file, but never an incomplete ``path``.
    A ``nameless`` one is deleted with the process, if the file system supports that; it is for directories
    that theta does not clean up.
    """

    dated_back = False
    """Whether the file gets a time one second in the past, or :attr:`date`."""
    date: int | None = None
    """The time of modification that the file gets if it is dated back, in nanoseconds since 1970."""
    left: os.stat_result | None = None
    """The stat data of the file when it had got its name; a later change by somebody is not in them."""
    ready: Callable[[], object] | None = None
    """Called just before the rename; what it raises ends the block, and ``path`` is not changed."""

    def __init__(
        self,
        path: str | Path,
        *,
        temp_dir: str | Path | None = None,
        mode: int = 0o666,
        durable: bool = True,
        nameless: bool = False,
    ) -> None:
        self.path = Path(path)
        self.mode = mode
        self._durable = durable
        directory = Path(temp_dir) if temp_dir is not None else self.path.parent
        _step("create", path)
        self._syncing: Future[None] | None = None
        with translated(path):
            self._fd, self._temp = _new_file(directory, nameless=nameless)

    def write(self, data: Buffer) -> None:
        """Append ``data``."""
        _step("write", self.path)
        view = memoryview(data).cast("B")
        with translated(self.path):
            while view:
                view = view[os.write(self._fd, view) :]

    @property
    def size(self) -> int:
        """The number of bytes written so far."""
        return os.fstat(self._fd).st_size

    @property
    def temporary(self) -> Path | None:
        """The name of the file until the block ends, by which others may write to it; None without one."""
        return Path(self._temp) if os.fstat(self._fd).st_nlink else None

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` of the written content."""
        return read_at(self._fd, length, offset)

    def resize(self, size: int) -> None:
        """Make the file ``size`` bytes long; what is not written reads as zeros."""
        _step("write", self.path)
        with translated(self.path):
            os.ftruncate(self._fd, size)

    def patch(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset`` without moving the position of :meth:`write`; thread-safe."""
        _patch(self._fd, self.path, offset, data)

    def copy(self, descriptor: int, start: int, offset: int, length: int) -> None:
        """Copy ``length`` bytes from ``start`` of an open file to ``offset``, in the system if it can.

        A file system that shares blocks between files copies none.
        """
        _step("write", self.path)
        with translated(self.path):
            while length > 0:
                count = _copied(descriptor, self._fd, start, offset, min(length, _MOST_COPIED))
                if not count:
                    raise OSError(errno.EIO, "the file that is copied from became shorter")
                start, offset, length = start + count, offset + count, length - count

    def begin_sync(self) -> None:
        """Start to sync the written content in the background."""
        if self._durable:
            self._syncing = aside(lambda: os.fsync(self._fd))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._commit()
            except BaseException:
                self.discard()
                raise
        else:
            self.discard()

    def _commit(self) -> None:
        with translated(self.path):
            os.fchmod(self._fd, _modes.allowed(self.path, self.mode))
            if self.dated_back:
                self._date_back()
            if self._durable:
                _step("fsync", self.path)
                if self._syncing is not None:
                    self._syncing.result()  # the kernel reports an error once: the next fsync succeeds
                os.fsync(self._fd)
            _step("rename", self.path)
            self._name_it()
            if self.ready is not None:
                self.ready()
            os.replace(self._temp, self.path)
            if not self.dated_back:
                self._date_to_name()
            self.left = os.fstat(self._fd)
            os.close(self._fd)
            self._fd = -1
            if self._durable:
                fsync_dir(self.path.parent)

    def _date_back(self) -> None:
        now = os.fstat(self._fd).st_mtime_ns
        date = now - 10**9 if self.date is None else min(self.date, now)
        with contextlib.suppress(OSError):  # a file system without times of its own
            os.utime(self._fd, ns=(now, date))

    def _name_it(self) -> None:
        """Give the temporary file its name, if it has none yet."""
        link = f"/proc/self/fd/{self._fd}"
        if not os.fstat(self._fd).st_nlink:
            # os.link follows the link only with a directory descriptor (python/cpython#81793).
            os.link(link, self._temp, src_dir_fd=self._fd, follow_symlinks=True)

    def _date_to_name(self) -> None:
        """Set the times to now if the rename was in a later second than the last write.

        Git trusts a file whose mtime is in an earlier second than its index.  If that file is then rewritten
        in the second of the rename, with its mtime kept, all of its stat data are as before.
        """
        info = os.fstat(self._fd)
        if int(info.st_mtime) != int(info.st_ctime):
            os.utime(self._fd)

    def discard(self) -> None:
        """Close and remove the temporary file; ``path`` is not changed."""
        if self._syncing is not None:
            self._syncing.exception()  # wait: the descriptor may be reused after it is closed
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(OSError):
            os.unlink(self._temp)


_FINE_NS: Final = 50_000_000
_COARSE_NS: Final = 2_100_000_000
"""Nanoseconds in which a file or folder may change twice and have one time."""


def certain_from(mtime_ns: int, ctime_ns: int) -> int:
    """Return the time, in nanoseconds, from which a change leaves other times than these.

    A whole second says that the file system keeps no finer time.
    """
    return max(mtime_ns, ctime_ns) + (_FINE_NS if ctime_ns % 1_000_000_000 else _COARSE_NS)


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Return ``length`` bytes from ``offset``, however few the system reads at a time; fewer at the end."""
    found = os.pread(descriptor, length, offset)
    if len(found) == length or not found:
        return found
    parts = [found]
    while (missing := length - sum(map(len, parts))) and parts[-1]:
        parts.append(os.pread(descriptor, missing, offset + length - missing))
    return b"".join(parts)


def read_into(descriptor: int, room: memoryview, offset: int) -> int:
    """Fill ``room`` from ``offset`` on, however few bytes the system reads at a time; return their number."""
    done = 0
    while done < len(room) and (length := os.preadv(descriptor, [room[done:]], offset + done)):
        done += length
    return done


_MOST_PIECES: Final = 1000
"""Pieces that one call of the system takes: IOV_MAX is 1024 nearly everywhere."""
_MOST_AT_ONCE: Final = 1 << 18
"""Bytes of pieces that one call takes: for longer ones Linux takes the largest pages of its cache (folios).

Those are free for so long that a virtual machine has given them back: 500 MB take 1.1 s in place of .1.
"""


def _write_all(fd: int, views: list[memoryview]) -> None:
    """Write all of ``views``, however little the system takes at a time."""
    while views:
        written = os.writev(fd, views)
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if views:
            views[0] = views[0][written:]


class PatchedFile:
    """A file that is there and is written to in place.

    A killed process leaves it half written.  Who uses this keeps a sign of that until :meth:`sync`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with translated(path):
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self.stat = os.fstat(self._fd)

    @property
    def size(self) -> int:
        """The length in bytes, which stays as it is."""
        return self.stat.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``."""
        with translated(self.path):
            found = read_at(self._fd, length, offset)
            if len(found) < length:
                raise OSError(errno.EIO, "it became shorter while it was read")
            return found

    def patch(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset``; thread-safe."""
        _patch(self._fd, self.path, offset, data)

    def sync(self) -> os.stat_result:
        """Make durable what was written; return the stat data of the file."""
        _step("fsync", self.path)
        with translated(self.path):
            os.fsync(self._fd)
            return os.fstat(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


_MOST_COPIED: Final = 1 << 30
"""Bytes that one call of the system copies at most."""
_PIECE: Final = 1 << 20


def _copied(source: int, target: int, start: int, offset: int, length: int) -> int:
    """Copy up to ``length`` bytes; return how many were, 0 at the end of the source."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, length, start, offset)
        except OSError as error:  # between file systems, or one that cannot
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    return os.pwrite(target, os.pread(source, min(length, _PIECE), start), offset)


def _patch(descriptor: int, path: Path, offset: int, data: Buffer) -> None:
    """Write all of ``data`` at ``offset``."""
    _step("write", path)
    view = memoryview(data).cast("B")
    with translated(path):
        while view:
            count = os.pwrite(descriptor, view, offset)
            view, offset = view[count:], offset + count


class AppendFile:
    """A new temporary file that is written sequentially and patched (for the pack writer).

    Without a ``directory`` it is in the system's directory for temporary files, or in memory without one.
    """

    def __init__(self, directory: str | Path | None) -> None:
        place = directory if directory is not None else "a temporary file"
        _step("create", place)
        with translated(place):
            if directory is not None:
                make_dirs(directory)
                self.fd, name = tempfile.mkstemp(prefix=own_temporary(""), dir=directory)
            else:
                self.fd, name = _temporary()
        self.path = Path(name)
        self.size = 0
        self._sent = 0
        self._is_temporary = True

    def write(self, *pieces: Buffer) -> None:
        """Append ``pieces``."""
        _step("write", self.path)
        views = [memoryview(piece).cast("B") for piece in pieces]
        self.size += sum(map(len, views))
        with translated(self.path):
            for portion in portions(views, len, _MOST_AT_ONCE, _MOST_PIECES):
                _write_all(self.fd, portion)

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrite written bytes at ``offset``."""
        _patch(self.fd, self.path, offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` of the written content."""
        return read_at(self.fd, length, offset)

    def read_into(self, offset: int, room: bytearray) -> int:
        """Read back into ``room``; return how many bytes there were."""
        return os.preadv(self.fd, [room], offset)

    def begin_writing_back(self) -> None:
        """Let the system begin to put on disk what was written: there is less to wait for at the end."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # Linux begins to write the pages that it is asked to forget
                os.posix_fadvise(self.fd, self._sent, self.size - self._sent, os.POSIX_FADV_DONTNEED)
        self._sent = self.size

    def publish(self, target: str | Path, mode: int = 0o444) -> None:
        """Make the content durable and rename the file to ``target``."""
        with translated(target):
            os.fchmod(self.fd, _modes.allowed(target, mode))
            _step("fsync", self.path)
            os.fsync(self.fd)
            os.close(self.fd)
            self.fd = -1
            _step("rename", target)
            os.replace(self.path, target)
            self._is_temporary = False

    def discard(self) -> None:
        """Close and remove the temporary file; harmless after :meth:`publish` succeeded."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._is_temporary:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _new_file(directory: str | Path, *, nameless: bool) -> tuple[int, str]:
    """Create a temporary file in ``directory``; return its descriptor, and its name or future name."""
    if nameless and hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not on all file systems
            name = os.path.join(directory, own_temporary(os.urandom(6).hex()))
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), name
    return tempfile.mkstemp(prefix=own_temporary(""), dir=directory)


def aside(work: Callable[[], None]) -> Future[None]:
    """Run ``work`` on a new thread."""
    from concurrent.futures import ThreadPoolExecutor

    from theta.parallel import submit

    pool = ThreadPoolExecutor(1)
    done = submit(pool, work)
    pool.shutdown(wait=False)
    return done


def _temporary() -> tuple[int, str]:
    try:
        return tempfile.mkstemp(prefix=own_temporary(""))
    except FileNotFoundError:
        descriptor = os.memfd_create(own_temporary(""))
        return descriptor, f"/proc/self/fd/{descriptor}"


def own_temporary(name: str) -> str:
    """Return the name of a temporary file that later commands remove if this process is killed."""
    return f"{TEMPORARY}{os.getpid()}_{machine()}_{name}"


@functools.cache
def machine() -> str:
    """Return a digest that processes share whose ids can be compared: of the boot and the namespace of ids.

    Several machines, and several containers of one, may have the same file system.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        facts = boot + b"%d" % os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        facts = os.fsencode(os.uname().nodename)
    return f"{zlib.crc32(facts):08x}"


def silence(descriptor: int) -> None:
    """Redirect ``descriptor`` to the null device: the reader of a pipe exited, and exit must not fail."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def nowhere(descriptor: int, mode: str) -> TextIO:
    """Open the null device as the closed standard stream ``descriptor``; all lower ones must be open."""
    os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
    return io.TextIOWrapper(io.FileIO(descriptor, mode, closefd=False), encoding="utf-8")


@contextlib.contextmanager
def temporary_directory(prefix: str, within: Path | None = None) -> Iterator[Path]:
    """Create a private directory, which is removed at the end of the block.

    Without ``within`` it bears the id of this process; later commands remove it if this one is killed.
    """
    try:
        marked = prefix if within is not None else f"{prefix}{os.getpid()}_{machine()}_"
        place = Path(tempfile.mkdtemp(prefix=marked, dir=within))
    except FileNotFoundError as error:
        raise DiskError(
            "there is no folder for temporary files", hint="set TMPDIR to one that can be written"
        ) from error
    try:
        yield place
    finally:
        remove_tree(place)


def temporary_place() -> Path:
    """Return the folder in which :func:`temporary_directory` creates directories."""
    return Path(tempfile.gettempdir())


def free_space(path: str | Path) -> int:
    """Return the free bytes for an unprivileged user on the file system of ``path``."""
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def is_full(path: str | Path) -> bool:
    """Return whether next to nothing is free; a program that failed may have removed what it wrote."""
    return free_space(path) < _NOTHING


class Lock:
    """An advisory lock that the kernel releases when its holder dies.

    A ``shared`` lock may be held by several processes, and excludes exclusive ones.  Raises
    :class:`BusyError` after ``patience`` seconds.
    """

    def __init__(self, path: str | Path, *, shared: bool = False, patience: float = 1.0) -> None:
        make_dirs(Path(path).parent)
        _step("lock", path)
        with translated(path):
            self.fd = _open_lock(path)
        try:
            self._take(fcntl.LOCK_SH if shared else fcntl.LOCK_EX, patience)
        except BaseException:
            self.release()
            raise

    def _take(self, kind: int, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
                return
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise BusyError(
                        f"another theta command is still running in this repository after {patience:.0f} s",
                        hint="wait for it to end and try again",
                    ) from error
            time.sleep(0.02)

    def release(self) -> None:
        """Release the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _open_lock(path: str | Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:  # another user's file can be locked too
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def create_exclusive(path: str | Path) -> bool:
    """Create an empty file ``path``; return False if it exists."""
    _step("create", path)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    except OSError as error:
        raise as_theta_error(error, path) from error
    return True


def copy(source: str | Path, target: str | Path) -> None:
    """Copy the bytes of ``source`` to ``target``."""
    _step("copy", target)
    with translated(target):
        shutil.copyfile(source, target)


def link(source: str | Path, target: str | Path) -> None:
    """Make ``target`` another name of the file ``source``, or a copy where that is not possible."""
    _step("link", target)
    try:
        os.link(source, target)
    except OSError:
        copy(source, target)


def safe_target(root: str | Path, relative: str) -> Path:
    """Return the path of ``relative`` in worktree ``root`` after creating its parent directories.

    Raises :class:`WouldOverwriteError` if a parent is a symbolic link or a file, or the path is a
    directory: a checkout must never write outside the worktree (CVE-2021-21300).
    """
    parts = relative.split("/")
    if not all(parts) or any(part in (".", "..") or part.lower() == ".git" for part in parts):
        raise WouldOverwriteError(f"unsafe path in the repository: {relative!r}")
    place = Path(root)
    for part in parts[:-1]:
        place = place / part
        _ensure_real_dir(place)
    place = place / parts[-1]
    if place.is_dir() and not place.is_symlink():
        raise WouldOverwriteError(f"a directory is where {relative} belongs")
    return place


def _ensure_real_dir(place: Path) -> None:
    try:
        mode = os.lstat(place).st_mode
    except FileNotFoundError:
        make_dirs(place)
        return
    except OSError as error:
        raise as_theta_error(error, place) from error
    if not stat.S_ISDIR(mode):
        raise WouldOverwriteError(f"{place} is not a directory; it will not be written through")
