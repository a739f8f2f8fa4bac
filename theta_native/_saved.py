"""The cache of compiled kernels, in directories that only this user can write to.

numba saves pickles, so another user who can write to the directory could run code in our process (CWE-502).
It is only a cache: kernels that cannot be read are compiled, and errors of writing are ignored.

numba's own cache has three problems.  It raises an error if its directory is read-only or the disk is full.
It numbers its files, so two processes that save at the same time can store the code of one signature under
the name of another.  It checks the source of a kernel, but not those of the kernels that it calls.
So here each version of the sources has its own directory, and a process saves under a lock.

The key of compiled code contains the processor and its features.  The name of the directory depends on the
versions of numba and Python and on the contents of the sources.  So a container, a copy or a new installation
of the same version loads what is there, and another processor does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from theta_native import _claims, _signatures
from theta_native.object_code import linked

PROBE: Final = 1 << 16
"""The number of bytes that are written to test whether a directory is writable."""

_HARMLESS: Final = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"}
"""The settings of numba that do not change what it compiles."""

lost = False
"""Whether this process compiled a kernel that it could not save."""


class Saved:
    """The cache of one kernel, with the interface of ``numba.core.caching.Cache``."""

    def __init__(
        self, function: Callable[..., Any], missed: Callable[[str], None], waits: Callable[[], None]
    ) -> None:
        """Set up the cache of ``function``; ``missed`` is called with each signature that is not saved."""
        from numba.core import caching, compiler

        code = function.__code__
        self._key = hashlib.sha256(code.co_code).hexdigest()
        self._identity = _identity(function)
        name = f"{function.__module__}.{function.__qualname__}-{code.co_firstlineno}"
        base = name.replace("<", "").replace(">", "")
        opened: Any = caching.IndexDataCacheFile
        self._missed, self._waits = missed, waits
        self._rebuild: Any = compiler.CompileResult._rebuild
        self._name = f"{function.__module__.removeprefix('theta_native.')}.{function.__name__}"
        self._files = [(place, opened(str(place), base, "")) for place in directories()]
        self.cache_path = str(self._files[-1][0]) if self._files else ""

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the compiled function for ``signature``, or None when this process must compile it."""
        context.refresh()
        if (found := self._load(signature, context)) is not None or not self._files:
            return found
        place, name = self._files[-1][0], self._spelled(signature)
        self._missed(name)
        if not _claims.take(place, name):
            self._waits()
            _claims.wait(place, name)
        if (found := self._load(signature, context)) is not None:
            _claims.give_back(place, name)
        return found

    def claim(self, signature: Any, context: Any) -> bool:
        """Claim ``signature``; return False if it is saved, or if another process compiles it."""
        context.refresh()
        if not self._files or self._load(signature, context) is not None:
            return False
        return _claims.take(self._files[-1][0], self._spelled(signature))

    def _spelled(self, signature: Any) -> str:
        return f"{self._name} {_signatures.spell(signature)}"

    def _load(self, signature: Any, context: Any) -> Any:
        codegen = context.codegen()
        key = (signature, codegen.magic_tuple(), self._key)
        for _, file in self._files:
            with contextlib.suppress(Exception):  # unreadable means absent
                if (found := file.load(key)) is not None:
                    compiled = self._rebuild(context, *found)
                    self._save_entry(signature, found, codegen)
                    return compiled
        return None

    def _save_entry(self, signature: Any, reduced: Any, codegen: Any) -> None:
        """Save the kernel as object code that is called without numba, unless that is done."""
        from theta_native.object_code import entries

        with contextlib.suppress(Exception):  # numba calls it
            spelled = _signatures.spell(signature)
            name = linked.file_name(self._identity, spelled, codegen.magic_tuple())
            libdata, fndesc, _, typed, *_ = reduced
            if any(linked.is_whole(place / name) for place, _ in self._files):
                return
            if content := entries.content(libdata, fndesc, typed, codegen):
                _replace(self._files[-1][0] / name, content)

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Save the compiled function for ``signature``; set :data:`lost` if that fails."""
        global lost
        try:
            if compiled.library.has_dynamic_globals:  # addresses are invalid in another process
                return
            place, file = self._files[-1]
            reduced = compiled._reduce()
            with _locked(place):
                _save(file, (signature, compiled.codegen.magic_tuple(), self._key), reduced)
            self._save_entry(signature, reduced, compiled.codegen)
        except Exception:
            lost = True
        finally:
            if self._files:
                _claims.give_back(self._files[-1][0], self._spelled(signature))

    def flush(self) -> None:
        """Do nothing: other sources have another directory."""


def load(function: Callable[..., Any], args: tuple[Any, ...]) -> linked.Called | None:
    """Return a kernel for arguments like ``args`` that is called without numba; None if it is not saved."""
    if any(name.startswith("NUMBA_") and name not in _HARMLESS for name in os.environ):
        return None
    return linked.load(directories(), _identity(function), args)


def _identity(function: Callable[..., Any]) -> str:
    """Return a text that differs for functions that differ in name or code."""
    code = function.__code__
    facts = (function.__module__, function.__qualname__, code.co_code.hex(), code.co_consts, code.co_names)
    return repr(facts)


def _replace(path: Path, content: bytes) -> None:
    """Write a file at once, so that no process reads half of it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        draft.write_bytes(content)
        os.replace(draft, path)


def _save(file: Any, key: object, data: object) -> None:
    try:
        file.save(key, data)
    except OSError:
        raise
    except Exception:  # the existing index cannot be read
        file.flush()
        file.save(key, data)


@functools.cache
def directories() -> tuple[Path, ...]:
    """Return the directories to load from; the last is the one to save in, if it is writable.

    If a candidate is only readable, the next candidate follows it.
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


def can_save() -> bool:
    """Return whether there is a directory that takes a file."""
    return bool(directories()) and _takes_bytes(directories()[-1])


def _version() -> str:
    """Return a digest of the sources, numba and Python, on which compiled code depends; "" if unknown."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    facts = [_numba(), str(sys.implementation.cache_tag), os.environ.get("NUMBA_BOUNDSCHECK", "")]
    digest = hashlib.sha256("\0".join(facts).encode())
    try:
        for source in sources:
            digest.update(source.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:16] if sources else ""


def _numba() -> str:
    """Return what tells versions of numba apart, without the packages that reading its metadata imports."""
    found = importlib.util.find_spec("numba")
    if found is not None and found.origin is not None:
        with contextlib.suppress(OSError):
            return Path(found.origin).with_name("_version.py").read_text()
    from importlib.metadata import version

    return version("numba")


def _candidates() -> Iterator[tuple[Path, bool]]:
    """Yield directories in the order of preference, and whether the user chose them for this purpose."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named) / "theta", True
    with contextlib.suppress(RuntimeError):  # there is no home directory
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "theta" / "numba", False
    with contextlib.suppress(OSError):  # there is no directory for temporaries
        yield Path(tempfile.gettempdir()) / f"theta-cache-{os.geteuid()}", False


def _prepare(place: Path, *, chosen: bool) -> bool:
    """Create ``place`` if necessary; return whether it exists and can be trusted."""
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
    """Return whether a directory may be created in ``parent``.

    It must not be another user's: under ``sudo`` the home is that of the user, whose own theta could not
    use directories of root.  And other users must not be able to rename its entries.
    """
    info = os.stat(parent)
    return info.st_uid in (0, os.geteuid()) and (
        not info.st_mode & 0o002 or bool(info.st_mode & stat.S_ISVTX)
    )


def _is_private(directory: Path) -> bool:
    """Return whether ``directory`` is a real directory of this user without permissions for others."""
    info = os.lstat(directory)
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o077


def _takes_bytes(place: Path) -> bool:
    """Return whether a file can be written in ``place``, by permissions, mounts, space and quotas."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(PROBE))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold the lock of ``place`` during the block."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
