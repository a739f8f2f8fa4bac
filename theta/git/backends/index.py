"""Reading and editing Git's index: entries with stat data and skip-worktree flags, under git's lock.

pygit2 supports neither, so entries are built as libgit2's C structures.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pygit2
from pygit2.ffi import C, ffi

from theta import _fs
from theta.errors import DiskError, UnsupportedRepositoryError
from theta.git.backends.index_copy import IndexCopy, signature
from theta.git.backends.index_entries import Entry, Staged

if TYPE_CHECKING:
    from theta.git.backends.protocols import Indexes

_SKIP_WORKTREE = 1 << 14
_INTENT_TO_ADD = 1 << 13
_DIGEST = 20
_SIGN = 1 << 31


class IndexEdit(IndexCopy):
    """An atomic change of an index file: ``with IndexEdit(path, scratch) as edit:``."""

    def _load(self) -> None:
        self._old_seconds = int(os.stat(self._path).st_mtime) if self._path.exists() else 0
        self._index = opened(self._copy)
        self._fresh: set[bytes] = set()
        self._has_conflicts = bool(C.git_index_has_conflicts(self._index._index))
        self.changed = False

    def entries(self) -> Iterator[Entry]:
        """Yield all entries in git's order."""
        yield from _entries(self._index)

    def outside(self, directory: str) -> Iterator[Entry]:
        """Yield the entries that are not below ``directory``, where many may be."""
        return _outside(self._index, directory)

    def put(self, item: Staged) -> None:
        """Add or replace the stage-0 entry of ``item.path``, dropping its conflict stages."""
        entry, keep = _c_entry(item)
        self.drop_conflict(item.path)
        _check(C.git_index_add(self._index._index, entry), item.path)
        del keep
        if item.stat is not None:
            self._fresh.add(os.fsencode(item.path))
        self.changed = True

    def put_conflict(self, path: str, base: str | None, ours: str | None, theirs: str | None) -> None:
        """Put ``path`` into conflict with these blob ids as stages 1 to 3, None for a missing file."""
        C.git_index_remove(self._index._index, os.fsencode(path), 0)
        made = [_c_entry(Staged(path, oid)) if oid else (ffi.NULL, None) for oid in (base, ours, theirs)]
        _check(C.git_index_conflict_add(self._index._index, *(entry for entry, _ in made)), path)
        self.changed = self._has_conflicts = True

    def drop_conflict(self, path: str) -> None:
        """Drop the stages 1 to 3 of ``path``, if any."""
        if not self._has_conflicts:  # looking for each of them takes longer than all else for an entry
            return
        name = os.fsencode(path)
        for stage in (1, 2, 3):
            if C.git_index_remove(self._index._index, name, stage) == 0:
                self.changed = True

    def remove_conflicts_under(self, directory: str) -> None:
        """Drop the conflict stages of all paths below ``directory``."""
        if self._has_conflicts:
            super().remove_conflicts_under(directory)

    def remove(self, path: str) -> None:
        """Remove the stage-0 entry of ``path``."""
        if C.git_index_remove(self._index._index, os.fsencode(path), 0) == 0:
            self.changed = True

    def _is_changed(self) -> bool:
        return self.changed

    def _write(self) -> None:
        self._smudge_racy()
        try:
            self._index.write()
        except (pygit2.GitError, OSError) as error:
            raise _fs.write_error(error, self._path) from error

    def _smudge_racy(self) -> None:
        """Make git compare the content of files that changed in the second of the old index or later.

        Git would trust their stat data because the new index is younger than they are (git's
        Documentation/technical/racy-git.txt).  A size of 0 makes it read them.
        """
        for entry in _c_entries(self._index):
            late = entry.mtime.seconds >= self._old_seconds and entry.mtime.seconds > 0
            if late and ffi.string(entry.path) not in self._fresh:
                ffi.cast("git_index_entry *", entry).file_size = 0


class IndexFile:
    """An index file whose entries are cached until it changes."""

    def __init__(self, indexes: Indexes, path: Path) -> None:
        self._indexes, self._path = indexes, path
        self._seen: tuple[object, ...] = ()
        self._entries: tuple[Entry, ...] = ()

    def outside(self, directory: str) -> tuple[Entry, ...]:
        """Return all entries that are not below ``directory``, in git's order.

        ``directory`` must be the same in all calls.  Raises the errors of :func:`opened`.
        """
        seen = signature(self._path)
        if seen != self._seen:
            self._entries = tuple(self._indexes.outside(self._path, directory)) if seen else ()
            self._seen = seen
        return self._entries


def _outside(index: pygit2.Index, directory: str) -> Iterator[Entry]:
    """Yield the entries not below ``directory``, whose entries are contiguous and may be many."""
    count = C.git_index_entrycount(index._index)
    prefix = os.fsencode(directory)
    first, end = (bisect_left(range(count), prefix + sign, key=_path_at(index)) for sign in (b"/", b"0"))
    for position in (*range(first), *range(end, count)):
        yield _entry(C.git_index_get_byindex(index._index, position))


def _path_at(index: pygit2.Index) -> Callable[[int], bytes]:
    return lambda position: bytes(ffi.string(C.git_index_get_byindex(index._index, position).path))


def read_outside(path: Path, directory: str) -> list[Entry]:
    """Return the entries of the index file at ``path`` that are not below ``directory``."""
    return list(_outside(opened(path), directory))


def read_entries(path: Path) -> list[Entry]:
    """Return all entries of the index file at ``path``; empty without a file."""
    return list(_entries(opened(path))) if path.exists() else []


def listing(path: Path) -> bytes:
    """Return all entries of the index file at ``path`` as ``git ls-files -s -z`` prints them."""
    rows = (
        b"%06o %b %d\t%b\0" % (entry.mode, _id(entry).hex().encode(), _stage(entry), ffi.string(entry.path))
        for entry in _c_entries(opened(path))
    )
    return b"".join(rows)


def has_conflicts(path: Path) -> bool:
    """Return whether the index file at ``path`` has entries in conflict; raises as :func:`opened`."""
    index = opened(path)  # keep it alive: its pointer is used
    return bool(C.git_index_has_conflicts(index._index))


def has_intended(index: pygit2.Index) -> bool:
    """Return whether ``index`` has intent-to-add entries, which git leaves out of trees."""
    return any(entry.flags_extended & _INTENT_TO_ADD for entry in _c_entries(index))


class _Index(pygit2.Index):
    """An index whose finalizer works after its constructor failed."""

    def __del__(self) -> None:
        if hasattr(self, "_index"):
            super().__del__()


def opened(path: Path) -> pygit2.Index:
    """Open the index file at ``path``; raises :class:`UnsupportedRepositoryError` and :class:`DiskError`."""
    try:
        index = _Index(str(path))  # reads the file, if there is one
    except (pygit2.GitError, OSError) as error:
        if "extension" in str(error):
            raise UnsupportedRepositoryError(
                "the index is split or sparse, which theta cannot edit",
                hint="git update-index --no-split-index; git sparse-checkout reapply --no-sparse-index",
            ) from error
        raise DiskError(f"cannot read the index: {error}") from error
    return index


def _c_entries(index: pygit2.Index) -> Iterator[Any]:
    pointer = index._index
    for position in range(C.git_index_entrycount(pointer)):
        yield C.git_index_get_byindex(pointer, position)


def _entries(index: pygit2.Index) -> Iterator[Entry]:
    return map(_entry, _c_entries(index))


def _entry(entry: Any) -> Entry:
    return Entry(
        os.fsdecode(ffi.string(entry.path)),
        _id(entry).hex(),
        entry.mode,
        _stage(entry),
        bool(entry.flags_extended & _SKIP_WORKTREE),
        bool(entry.flags_extended & _INTENT_TO_ADD),
    )


def _id(entry: Any) -> bytes:
    found: bytes = ffi.buffer(ffi.addressof(entry.id), _DIGEST)[:]
    return found


def _stage(entry: Any) -> int:
    return int(entry.flags >> 12) & 3


def _c_entry(item: Staged) -> tuple[Any, Any]:
    entry = ffi.new("git_index_entry *")
    name = ffi.new("char[]", os.fsencode(item.path))
    entry.path, entry.mode = name, item.mode
    ffi.buffer(ffi.addressof(entry.id), 20)[:] = bytes.fromhex(item.oid)
    entry.flags_extended = _SKIP_WORKTREE * item.skip | _INTENT_TO_ADD * item.intended
    if item.stat is not None:
        _fill_stat(entry, item.stat)
    return entry, name


def _fill_stat(entry: Any, info: os.stat_result) -> None:
    entry.ctime.seconds, entry.ctime.nanoseconds = _time(info.st_ctime_ns)
    entry.mtime.seconds, entry.mtime.nanoseconds = _time(info.st_mtime_ns)
    entry.dev, entry.ino = info.st_dev & 0xFFFFFFFF, info.st_ino & 0xFFFFFFFF
    entry.uid, entry.gid = info.st_uid & 0xFFFFFFFF, info.st_gid & 0xFFFFFFFF
    # Git stores the size modulo 2^32, and compares the content if it is 0 (read-cache.c).
    entry.file_size = info.st_size & 0xFFFFFFFF or (0x80000000 if info.st_size else 0)


def _time(moment: int) -> tuple[int, int]:
    """Return seconds, of which git keeps the lowest 32 bits (libgit2 with a sign), and nanoseconds."""
    seconds, nanoseconds = divmod(moment, 10**9)
    return (seconds + _SIGN) % (2 * _SIGN) - _SIGN, nanoseconds


def _check(code: int, path: str) -> None:
    if code:
        raise DiskError(f"cannot stage {path}")


def fresh_paths(index: Path, seen: Mapping[str, os.stat_result]) -> set[str]:
    """Return those paths of ``seen`` whose index entry has these stat data and is trusted by git.

    Git trusts only entries whose time is before that of the index.  Writing the index again in a later second
    makes git trust them, so only an entry of the current second counts as fresh.
    """
    if not index.exists():
        return set()
    found, fresh = opened(index), set()
    written, now = int(os.stat(index).st_mtime), int(time.time())
    for path, info in seen.items():
        if written <= info.st_mtime_ns // 10**9 < now:
            continue
        entry = C.git_index_get_bypath(found._index, os.fsencode(path), 0)
        if entry != ffi.NULL:
            wanted = ffi.new("git_index_entry *")
            _fill_stat(wanted, info)
            if _stat_fields(entry) == _stat_fields(wanted):
                fresh.add(path)
    return fresh


def _stat_fields(entry: Any) -> tuple[int, ...]:
    mtime, ctime = entry.mtime, entry.ctime
    return (mtime.seconds, ctime.seconds, entry.ino, entry.uid, entry.gid, entry.file_size)
