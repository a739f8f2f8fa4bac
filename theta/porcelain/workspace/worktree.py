"""Comparing checkpoint files of the worktree with the index, and writing them."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _fs
from theta.errors import BusyError, DiskError, ManifestError, MissingObjectsError, NoSpaceError, concerning
from theta.git import lfs
from theta.git.backends.index_entries import Staged
from theta.lazy import Module
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store.files.file_source import FileSource, Identity
from theta.store.format import manifest as manifests
from theta.store.format.manifest import MAGIC, Manifest

if TYPE_CHECKING:
    from theta.engine import restore_parts
    from theta.store.files import file_scan
    from theta.store.files.file_scan import Scan
    from theta.store.format import skeleton as skeletons
    from theta.store.format.skeleton import Skeleton
    from theta.store.read import reassembly
else:
    restore_parts = Module("theta.engine.restore_parts")
    file_scan = Module("theta.store.files.file_scan")
    reassembly = Module("theta.store.read.reassembly")
    skeletons = Module("theta.store.format.skeleton")

_WORTH_DATING_BACK: Final = 64 << 20
"""Number of bytes that git takes long to read again, through the filter."""
_TRIES: Final = 5
"""The number of attempts to write the index in the same second as the files; after that git reads them."""
_TICK: Final = 0.01
"""Seconds by which the clock of files is behind at most: it is that of the last tick of the kernel."""


_WORTH_A_MOMENT: Final = 64 << 20
_MOMENT: Final = 0.06
"""Seconds to wait for a trustworthy note of files of so many bytes, which take longer to read."""


class State(Enum):
    """How a checkpoint file differs from its index entry."""

    SAME = "same"
    MODIFIED = "modified"
    MISSING = "missing"
    UNFILLED = "unfilled"
    """The file is the manifest: objects were missing, or theta was killed."""


@dataclass(frozen=True)
class Found:
    """The result of examining a tracked path.

    Attributes:
        state: how the file differs from the index.
        scan: the scanned file, if it was read.
        text: the manifest, if the file is one.
        pointer: the file is a Git LFS pointer.
    """

    state: State
    scan: Scan | None = None
    text: bytes = b""
    pointer: bool = False


def peek(path: Path) -> bytes | None:
    """Return the manifest text in the file at ``path``; None when the file is anything else."""
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_size > manifests.MAX_BYTES:
            return None
        with open(path, "rb") as file:
            head = file.read(len(MAGIC))
            return head + file.read() if head == MAGIC else None
    except OSError:
        return None


def examine(session: Session, path: str, oid: str, progress: Progress | None = None) -> Found:
    """Compare the file at ``path`` with manifest ``oid``; reads it only if the stat cache cannot tell."""
    place = session.repo.worktree / path
    try:
        info = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return Found(State.MISSING)
    known = session.cache.manifest_of(path, Identity.of(info))
    if known is not None and known == oid:
        return Found(State.SAME)
    if (text := peek(place)) is not None:
        return Found(State.UNFILLED, text=text)
    if not stat.S_ISREG(info.st_mode):
        return Found(State.MODIFIED)
    if (pointer := lfs.pointer_at(place)) is not None:
        same = session.repo.format.blob_id(pointer) == oid
        return Found(State.SAME if same else State.MODIFIED, pointer=True)
    return _compare(session, path, oid, progress)


def is_already(session: Session, path: str, oid: str) -> bool:
    """Return whether the file at ``path`` is what manifest ``oid`` stands for; a known one is not read."""
    info = _lstat(session.repo.worktree / path)
    known = session.cache.manifest_of(path, Identity.of(info)) if info is not None else None
    if known is None or known == oid:
        return examine(session, path, oid).state is State.SAME
    before = session.manifest_or_none(known)
    return before is not None and before.same_value(session.manifest(oid))


def _compare(session: Session, path: str, oid: str, progress: Progress | None) -> Found:
    manifest = session.manifest_or_none(oid)
    kept = skeleton_of(session, manifest)
    with FileSource(session.repo.worktree / path, path) as source:
        begin(progress, "hashing", source.size, path)
        found = file_scan.scan(source, manifest, kept, progress)
        if manifest is None or not found.equals(manifest, kept):
            return Found(State.MODIFIED, found)
        source.verify_unchanged()
        session.cache.remember(path, source.identity, oid)
    return Found(State.SAME, found)


def skeleton_of(session: Session, manifest: Manifest | None) -> Skeleton | None:
    """Return the stored skeleton of ``manifest``; None when its objects are missing."""
    if manifest is None:
        return None
    try:
        return skeletons.read(session.objects, manifest.skeleton)
    except MissingObjectsError:
        return None


def refresh(session: Session, progress: Progress | None = None) -> dict[str, Found]:
    """Examine every staged checkpoint and give unchanged ones fresh stat data in the index."""
    staged = session.index
    found = {path: examine(session, path, entry.oid, progress) for path, entry in staged.items()}
    same = {path: staged[path].oid for path, item in found.items() if item.state is State.SAME}
    refresh_stat(session, same)
    session.journal.unchanged = same.keys()
    session.cache.save()
    return found


def refresh_stat(session: Session, paths: dict[str, str]) -> None:
    """Write the stat data of unchanged files (path -> manifest id) to their index entries.

    Plain git then sees them as unchanged without running the filter.  If the index is locked or cannot be
    written, nothing is done: that costs only time.
    """
    seen = {path: info for path in paths if (info := _lstat(session.repo.worktree / path)) is not None}
    stale = seen.keys() - session.repo.backend.indexes.fresh_paths(session.repo.index_path, seen)
    if not stale:
        return
    modes = {path: entry.mode for path, entry in session.index.items() if entry.oid == paths.get(path)}
    with (
        session.journal.reading(),
        contextlib.suppress(BusyError, DiskError, NoSpaceError),
        session.repo.edit_index(None, session.scratch(), patient=False) as edit,
    ):
        for path in stale & modes.keys():
            if session.cache.manifest_of(path, Identity.of(seen[path])) == paths[path]:
                edit.put(Staged(path, paths[path], modes[path], stat=seen[path]))


def outlast(session: Session) -> None:
    """Write the stat data of large files again that were staged in their second, once it is over.

    Git would read them through the filter (Documentation/technical/racy-git.txt), which takes longer than to
    wait.
    """
    staged = {path: entry.oid for path, entry in session.index.items()}
    seen = {path: known_stat(session, path, oid) for path, oid in staged.items()}
    large = {path: info for path, info in seen.items() if info and info.st_size >= _WORTH_DATING_BACK}
    if not large:
        return
    written, now = int(os.stat(session.repo.index_path).st_mtime), int(time.time())
    young = {path: int(info.st_mtime) for path, info in large.items() if written <= int(info.st_mtime) <= now}
    if now in young.values():
        _sleep_past(now)
    refresh_stat(session, {path: staged[path] for path in young})


def _sleep_past(second: int) -> None:
    """Wait until files that are written are of a later second; not for a clock that was put back."""
    time.sleep(min(max(second + 1 + _TICK - time.time(), 0.0), 1 + _TICK))


def known_stat(session: Session, path: str, oid: str) -> os.stat_result | None:
    """Return the stat data of file ``path``; None unless the stat cache has manifest ``oid`` for it."""
    info = _lstat(session.repo.worktree / path)
    if info is None or session.cache.manifest_of(path, Identity.of(info)) != oid:
        return None
    return info


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def fill(
    session: Session,
    path: str,
    manifest: Manifest,
    oid: str,
    mode: int,
    progress: Progress | None = None,
    files: Exchange | None = None,
) -> os.stat_result:
    """Write the checkpoint of ``manifest`` to ``path`` atomically; return the stat data of the new file.

    ``files`` may have begun the file, and may have the old one open.
    """
    place = _fs.safe_target(session.repo.worktree, path)
    restorer = reassembly.Restorer(session.objects, manifest)
    files = files or Exchange(session)
    with concerning(path):
        coming = files.take(path, manifest.skeleton, restorer.plan)
        with coming.file as file:
            file.mode = 0o777 if mode & 0o100 else 0o666
            file.dated_back = session.dated_back is not None or manifest.nbytes >= _WORTH_DATING_BACK
            file.date = session.began if session.dated_back is None else None
            there = frozenset(line.name for line in manifest.lines if coming.holds(line))
            session.objects.expect(manifest.trees(there))
            begin(progress, "restoring", manifest.nbytes, path)
            places = files.places(path, manifest)
            if (engine := session.engine(manifest.nbytes)) is not None:
                workers = restore_parts.RestoreWorkers(engine, session.objects)
                workers.fill(coming, manifest, oid, places, progress)
            restorer.write(coming, progress, places)
    info = os.lstat(place)
    session.cache.remember(path, Identity.of(info), oid)
    return info


def put_back(
    session: Session,
    wanted: Iterable[tuple[str, str, int]],
    progress: Progress | None = None,
    files: Exchange | None = None,
) -> None:
    """Write the checkpoints (path, manifest id, mode) and refresh the index entries that agree."""
    with session.engaged():
        _note(session, _put(session, wanted, progress, files), files)


def _put(
    session: Session,
    wanted: Iterable[tuple[str, str, int]],
    progress: Progress | None,
    files: Exchange | None,
) -> dict[str, tuple[str, os.stat_result]]:
    """Do as :func:`put_back`; return the files written (path -> manifest id, stat data)."""
    staged = session.index
    done: list[Staged] = []
    written: dict[str, tuple[str, os.stat_result]] = {}
    wanted = list(wanted)
    if session.dated_back is not None:
        session.journal.dating_back(path for path, _, _ in wanted)
    if files is None or not files.is_begun:
        session.expect(oid for _, oid, _ in wanted)
    for path, oid, mode in wanted:
        manifest = session.manifest(oid)
        info = fill(session, path, manifest, oid, mode, progress, files)
        entry = staged.get(path)
        if entry is not None and entry.oid == oid:
            done.append(Staged(path, oid, entry.mode, stat=info))
        written[path] = oid, info
    if done and session.dated_back is not None:
        session.dated_back += done
        _stage(session, done)
    elif done:
        _stage_young(session, done)
    session.cache.save()
    return written


@contextlib.contextmanager
def dated_back(session: Session) -> Iterator[None]:
    """Give checkpoint files written in this block a time before that of the index until the block ends.

    Git reads a file again, through the filter, if its time is in the second of the index
    (Documentation/technical/racy-git.txt).  So the gits of this block do not run the filter.  At the end
    small files get the current time (see :func:`_stage_young`).
    """
    session.dated_back = written = list[Staged]()
    try:
        yield
    finally:
        session.dated_back = None
        done = [item for item in written if _is_as_written(session, item)]
        with contextlib.suppress(BusyError, DiskError, NoSpaceError):
            small = [item for item in done if not _stays_dated_back(item)]
            large = [item for item in done if _stays_dated_back(item)]
            done = [*_touched(session, large, session.began), *_touched(session, small)]
            _stage_young(session, done)
            _note(session, {item.path: (item.oid, item.stat) for item in done if item.stat is not None})


def _is_as_written(session: Session, item: Staged) -> bool:
    """Return whether the file and its index entry are still those that were written."""
    now, entry = _lstat(session.repo.worktree / item.path), session.index.get(item.path)
    same = now is not None and item.stat is not None and Identity.of(now) == Identity.of(item.stat)
    return same and entry is not None and (entry.oid, entry.stage) == (item.oid, 0)


def _touched(session: Session, done: Iterable[Staged], date: int | None = None) -> list[Staged]:
    """Set the times of the files to ``date``, or now, and return ``done`` with their new stat data."""
    infos = ((item, _fs.touch(session.repo.worktree / item.path, date)) for item in done)
    return [replace(item, stat=info) for item, info in infos if info is not None]


def _stage_young(session: Session, done: list[Staged]) -> None:
    """Stage files that were just written: git reads small ones again, and trusts large ones at once.

    If the index is written in a later second than a file of now, git would trust the file, even if it was
    rewritten in its second.  Then the file is touched and staged again.

    Large files have the time at which the command began, so that git need not read them through the filter:
    the index is written in a later second, for which a short command waits.  Every later write gives them a
    time of that second or a later one, which git sees: it compares whole seconds.  What git cannot see is a
    rewrite in place that keeps the size, comes in this very second and then sets the time back; theta sees it
    by the nanoseconds of ctime.  The file is newer than all that was made of the one before it, as programs
    such as make need it.
    """
    old = [item for item in done if _is_large(item) and item.stat and item.stat.st_mtime_ns <= session.began]
    if old:
        _sleep_past(session.began // 10**9)
    _stage(session, old)
    done = [item for item in done if item not in old]
    for _ in range(_TRIES):
        _stage(session, done)
        written = int(os.stat(session.repo.index_path).st_mtime)
        if not (done := [item for item in done if item.stat and int(item.stat.st_mtime) < written]):
            return None
        done = _touched(session, done)
    return _stage(session, [replace(item, stat=None) for item in done])


def _is_large(item: Staged) -> bool:
    """Return whether reading the file of ``item`` through the filter takes longer than a second's wait."""
    return item.stat is not None and item.stat.st_size >= _WORTH_DATING_BACK


def _stays_dated_back(item: Staged) -> bool:
    """Return whether the file of ``item`` is large, and was dated back: not every file system has times."""
    info = item.stat
    return info is not None and _is_large(item) and int(info.st_mtime) < int(info.st_ctime)


def _stage(session: Session, done: Sequence[Staged]) -> None:
    if not done:
        return
    with session.change() as change:
        for item in done:
            change.index.put(item)


def _note(
    session: Session, written: Mapping[str, tuple[str, os.stat_result]], files: Exchange | None = None
) -> None:
    """Note again what files (path -> manifest id, stat data) were written that stayed as they are.

    The cache does not trust a file that was as new as its note, and the next command would read it.
    Meanwhile the system takes back the room of the old ``files``.
    """
    sizes = sum(info.st_size for _, info in written.values())
    certain = max((Identity.of(info).certain_from for _, info in written.values()), default=0)
    if sizes < _WORTH_A_MOMENT or session.dated_back is not None:
        return
    if files is not None:
        files.release()
    time.sleep(min(max(certain - time.time_ns(), 0) / 1e9, _MOMENT))
    for path, (oid, info) in written.items():
        now = _lstat(session.repo.worktree / path)
        if now is not None and Identity.of(now) == Identity.of(info):
            session.cache.remember(path, Identity.of(now), oid)
    session.cache.save()


def complete(session: Session, progress: Progress | None = None, files: Exchange | None = None) -> list[str]:
    """Replace every manifest in the worktree by its checkpoint; return the paths whose objects are missing.

    Git leaves manifests there when theta asked it to, when a file is large, or when theta was killed.
    Raises :class:`ManifestError` for one that cannot be read when the others are replaced.
    """
    missing: list[str] = []
    unread: list[ManifestError] = []
    wanted: list[tuple[str, str, int]] = []
    for path, stages in session.index.stages.items():
        text = peek(session.repo.worktree / path)
        if text is None or manifests.has_conflict_markers(text) or session.leaves(path):
            continue
        wanted.append((path, _ensure_blob(session, text), stages[max(stages)].mode))
    if files is None or not files.is_begun:
        session.expect(oid for _, oid, _ in wanted)
    written: dict[str, tuple[str, os.stat_result]] = {}
    with session.engaged():
        for item in wanted:
            try:
                written |= _put(session, [item], progress, files)
            except MissingObjectsError:
                missing.append(item[0])
            except ManifestError as error:
                unread.append(error)
    _note(session, written, files)
    session.journal.filled()
    if unread:
        raise unread[0]
    return missing


def _ensure_blob(session: Session, text: bytes) -> str:
    oid = session.repo.format.blob_id(text)
    return oid if session.repo.has(oid) else session.repo.write_blob(text)
