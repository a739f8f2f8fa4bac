"""Where compiled kernels are kept between processes: in directories that only this user can write to.

What numba saves is a set of pickles, so a directory that another user can write to would let them run
code in our process (CWE-502).  It is a cache: what cannot be read is compiled, what cannot be written
is compiled again by the next process, and neither is an error.

numba's own cache falls short of that in three ways.  It raises where its directory is read-only or its
disk full.  It numbers its files: two processes that save at once can leave the code of one signature
under the name of another.  It knows the source of a kernel, but not the sources of those that it calls.
So each version of the sources has a directory of its own here, and a process saves under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

PROBE: Final = 1 << 16
"""Bytes that are written to find out whether a directory takes any."""

lost = False
"""Whether this process compiled a kernel that it could save nowhere."""


class Saved:
    """What the dispatcher of one kernel asks for compiled code, as ``numba.core.caching.Cache``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        from numba.core import caching

        code = function.__code__
        self._key = hashlib.sha256(code.co_code).hexdigest()
        name = f"{function.__module__}.{function.__qualname__}-{code.co_firstlineno}"
        base = name.replace("<", "").replace(">", "")
        opened: Any = caching.IndexDataCacheFile
        self._files = [(place, opened(str(place), base, "")) for place in directories()]
        self.cache_path = str(self._files[-1][0]) if self._files else ""

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The compiled function for ``signature``, or none."""
        from numba.core.compiler import CompileResult

        rebuild: Any = CompileResult._rebuild
        context.refresh()
        key = (signature, context.codegen().magic_tuple(), self._key)
        for _, file in self._files:
            with contextlib.suppress(Exception):  # unreadable means absent
                if (found := file.load(key)) is not None:
                    return rebuild(context, *found)
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Save the compiled function for ``signature`` where that is possible."""
        global lost
        if compiled.library.has_dynamic_globals:  # addresses that mean nothing in another process
            return
        try:
            place, file = self._files[-1]
            with _locked(place):
                _save(file, (signature, compiled.codegen.magic_tuple(), self._key), compiled._reduce())
        except Exception:
            lost = True

    def flush(self) -> None:
        """Nothing is forgotten: other sources have another directory."""


def _save(file: Any, key: object, data: object) -> None:
    try:
        file.save(key, data)
    except OSError:
        raise
    except Exception:  # the index that is there cannot be read
        file.flush()
        file.save(key, data)


@functools.cache
def directories() -> tuple[Path, ...]:
    """The directories to look in; what is new is saved in the last one, if it can be written to.

    One that can be read but not written comes with the next candidate behind it.
    """
    found: list[Path] = []
    version = _version()
    for base, chosen in _candidates() if version else ():
        place = base / version
        if _prepare(place, chosen=chosen):
            found.append(place)
            if _takes_bytes(place):
                break
    return tuple(found)


def _version() -> str:
    """A digest of all that compiled code depends on and that its key does not tell; empty if unknown."""
    from importlib.metadata import version

    sources = sorted(Path(__file__).parent.glob("*.py"))
    facts = [version("numba"), str(sys.implementation.cache_tag), os.environ.get("NUMBA_BOUNDSCHECK", "")]
    digest = hashlib.sha256("\0".join(facts).encode())
    try:
        for source in sources:
            digest.update(source.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:16] if sources else ""


def _candidates() -> Iterator[tuple[Path, bool]]:
    """Directories in the order of preference, and whether the user named them for this purpose."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named) / "theta", True
    with contextlib.suppress(RuntimeError):  # there is no home directory
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "theta" / "numba", False
    with contextlib.suppress(OSError):  # there is no directory for temporaries
        yield Path(tempfile.gettempdir()) / f"theta-cache-{os.geteuid()}", False


def _prepare(place: Path, *, chosen: bool) -> bool:
    """Whether ``place`` is there, or could be made, and may be trusted."""
    try:
        if chosen:
            place.mkdir(parents=True, exist_ok=True)
            return True
        if not _is_ours(next(parent for parent in place.parents if os.path.lexists(parent))):
            return False
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        return _is_private(place.parent) and _is_private(place)
    except OSError:
        return False


def _is_ours(parent: Path) -> bool:
    """Whether a directory may be made in ``parent``: not as root in a user's home, nor where all may rename.

    The home is the user's under ``sudo``, whose own theta could not use what root left there.
    """
    info = os.stat(parent)
    return info.st_uid in (0, os.geteuid()) and (
        not info.st_mode & 0o002 or bool(info.st_mode & stat.S_ISVTX)
    )


def _is_private(directory: Path) -> bool:
    """Whether ``directory`` is a real directory of this user that nobody else may write to."""
    info = os.lstat(directory)
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o077


def _takes_bytes(place: Path) -> bool:
    """Whether a file can be written in ``place``: rights, mounts, space and quotas decide."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(PROBE))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Let one process at a time save in ``place``."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
