"""The clean/smudge filter, with which plain git turns files into manifests and back."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.errors import (
    ChangedWhileReadError,
    ManifestError,
    MissingObjectsError,
    NewerFormatError,
    NotFoundError,
    ThetaError,
)
from theta.lazy import Module
from theta.progress import Progress, begin

if TYPE_CHECKING:
    from theta import _fs, _notes
    from theta.git import lfs, processes
    from theta.git.pktline import PktLines
    from theta.porcelain.setup import installing
    from theta.porcelain.stage import staging
    from theta.porcelain.workspace import closures, unsettled
    from theta.porcelain.workspace.session import Session
    from theta.store import closure
    from theta.store import held_packs as held
    from theta.store.files import file_scan, file_source
    from theta.store.files.file_source import FileSource
    from theta.store.format import listings
    from theta.store.format import manifest as manifests
    from theta.store.format.manifest import Manifest
    from theta.store.odb import packs
    from theta.store.read import reassembly
else:  # a filter that defers needs none of these, and starts in a third of the time
    _fs = Module("theta._fs")
    _notes = Module("theta._notes")
    closure = Module("theta.store.closure")
    file_scan = Module("theta.store.files.file_scan")
    file_source = Module("theta.store.files.file_source")
    held = Module("theta.store.held_packs")
    closures = Module("theta.porcelain.workspace.closures")
    installing = Module("theta.porcelain.setup.installing")
    lfs = Module("theta.git.lfs")
    listings = Module("theta.store.format.listings")
    manifests = Module("theta.store.format.manifest")
    packs = Module("theta.store.odb.packs")
    processes = Module("theta.git.processes")
    reassembly = Module("theta.store.read.reassembly")
    staging = Module("theta.porcelain.stage.staging")
    unsettled = Module("theta.porcelain.workspace.unsettled")

_OURS: Final = re.compile(r"--ours?|-[a-z]*2")
"""The option of git checkout and restore that takes the files of ours from a conflict."""
SMUDGE_LIMIT: Final = 256 << 20
"""Size in bytes above which a hook writes the file: git keeps a whole smudged file in memory."""
Warn = Callable[[str], None]
Shown = Callable[[], contextlib.AbstractContextManager[Progress | None]]


@dataclass
class Filter:
    """Clean and smudge for one run of git.

    Args:
        open_session: opens the repository, when it is first needed.
        warn: called with one-line warnings.
        defer: leave manifests in place of files; the theta that runs git writes the files.
        limit: size in bytes above which smudge returns the manifest, for the hook to replace.
        index: the index file that git uses; None for that of the repository.
        progress: returns a context manager that shows the progress on one file.
        may_look: git only compares where the repository is read-only: manifests are not stored there.
    """

    open_session: Callable[[], Session]
    warn: Warn
    defer: bool = False
    limit: int = SMUDGE_LIMIT
    index: Path | None = None
    progress: Shown = contextlib.nullcontext
    may_look: bool = False
    _installed: bool = False

    @cached_property
    def _puts_ours(self) -> bool:
        """Whether git puts files of ours into the worktree, as ``git checkout --ours`` does."""
        return any(_OURS.fullmatch(word) for word in processes.command())

    @cached_property
    def session(self) -> Session:
        """The repository."""
        return self.open_session()

    @cached_property
    def looking(self) -> bool:
        """Whether nothing can be stored."""
        return self.may_look and self.session.repo.is_read_only

    def clean(self, path: str, packets: Iterable[bytes]) -> bytes:
        """Return the manifest of the file at ``path`` with the content ``packets``.

        A manifest is returned as it is.  A manifest with conflict markers raises :class:`ManifestError`
        while git holds the lock of the index, because it must not be staged.  Without the lock git only
        compares (``git diff``, ``blame``, ``mergetool``).
        """
        self.prepare()
        with self._received(path, packets) as (source, text):
            if text is not None:
                return self._checked_manifest(text, path)
            if (pointer := lfs.pointer_in(source)) is not None:
                return self._passed(path, pointer)
            manifest = self._stored(path, source)
            if self._is_staging() and (told := unsettled.check(self.session, path, manifest, self.index)):
                self.warn(told)
            return manifest.data

    def _passed(self, path: str, pointer: bytes) -> bytes:
        """Return a Git LFS pointer as it is, so that git status and diff work; a hook refuses new ones."""
        if self.session.index.oid(path) != self.session.repo.format.blob_id(pointer):
            self.warn(f"{path} is a Git LFS pointer, not the file itself; {lfs.FETCH}")
        return pointer

    def _stored(self, path: str, source: FileSource) -> Manifest:
        session = self.session
        kept = session.index.manifest(path)
        in_place = source.path == session.repo.worktree / path
        try:
            known = session.cache.manifest_of(path, source.identity) if in_place else None
            if known is not None and (cached := self._stored_before(path, known, kept)) is not None:
                lost = kept is not None and file_scan.loses_tensors(kept.format, cached.format)
                if lost and self._is_staging():
                    self.warn(f"{path} is no checkpoint any more; tracked as plain bytes")
                return cached
            manifest = self._store_new(path, source, kept)
        finally:
            session.objects.keeps.release()
        if in_place:
            with contextlib.suppress(ChangedWhileReadError):
                source.verify_unchanged()
                session.cache.remember(path, source.identity, manifest.oid)
                session.cache.save()
        self.request_sync()
        return manifest

    def _stored_before(self, path: str, known: str, kept: Manifest | None) -> Manifest | None:
        """Return the manifest ``known`` of a file, held until git has written its index; None if it is gone.

        After a rename the index may have another manifest, ``kept``, with the same value.
        """
        session = self.session
        is_held = self.looking or known in {session.index_of(file).oid(path) for file in {None, self.index}}
        is_held = is_held or held.renew(session.repo, known)  # before the look at what is here
        cached = session.manifest_or_none(known) if session.repo.has(known) else None
        if cached is None or not closures.complete(session, cached):
            return None
        if kept is not None and kept.same_value(cached):
            return kept
        if not is_held:
            closures.hold(session, cached)
        return cached

    def _store_new(self, path: str, source: FileSource, kept: Manifest | None) -> Manifest:
        session = self.session
        looking = packs.UnwrittenPack(session.repo.format) if self.looking else None
        with looking or session.objects.writer(keep=True) as pack:
            taken = {manifest.store for at, manifest in session.index.manifests.items() if at != path}
            with self.progress() as progress:
                stored = staging.take(session, pack, source, path, kept, taken, progress)
            if stored.note:
                self.warn(f"{path}: {stored.note}; tracked as plain bytes")
            if stored.manifest is kept:
                return stored.manifest  # nothing was written
            tree = closure.store_tree(pack, stored.manifest)
            # The stat cache refers to the manifest by id, so it must be stored too.
            oid = pack.blob(stored.manifest.data, text=True)
        if self.looking:
            return stored.manifest
        held.hold(session.repo, oid, tree, pack.path)
        held.sweep(session.repo)
        return stored.manifest

    @contextlib.contextmanager
    def _received(self, path: str, packets: Iterable[bytes]) -> Iterator[tuple[FileSource, bytes | None]]:
        """Yield the content as a source, and its text if it is a manifest.

        The source is the worktree file if it has the same content, otherwise a temporary copy.
        """
        place = self.session.repo.worktree / path
        with contextlib.ExitStack() as stack:
            spool = Spool(place, None if self.looking else self.session.scratch(), stack)
            for packet in packets:
                spool.add(packet)
            yield spool.source(), spool.text()

    def smudge(self, path: str, data: bytes) -> Iterable[bytes | memoryview]:
        """Return the file of the manifest ``data``.

        If it cannot be restored, the manifest is returned with a warning: an error of a required filter
        would break the checkout of the whole repository.
        """
        if self._puts_ours and manifests.looks_like_manifest(data):
            unsettled.note_choice(self.session, path)
        if self.defer or not manifests.looks_like_manifest(data):
            return [data]
        self.prepare()
        self.request_sync()
        if manifests.has_conflict_markers(data) or self.session.leaves(path):
            return [data]
        try:
            manifest = listings.read(self.session.objects, data)
            if manifest.nbytes > self.limit:  # known without what reads files
                return [data]
            self.session.objects.expect(manifest.trees())
            restorer = reassembly.Restorer(self.session.objects, manifest)
            if restorer.size > self.limit:
                return [data]
            with self.progress() as progress:
                begin(progress, "restoring", manifest.nbytes, path)
                return [memoryview(restorer.data(progress))]
        except NewerFormatError as error:
            self.warn(f"{path}: {error}; the manifest is left in its place")
        except ManifestError as error:
            self.warn(f"{path}: {error}")
        except ThetaError as error:
            if not (isinstance(error, MissingObjectsError) and _patches()):
                here, word = self.session.place(path), self.session.word(path)
                self.warn(f"{here}: {error}; run 'theta restore {word}'")
        return [data]

    def _checked_manifest(self, text: bytes, path: str) -> bytes:
        if manifests.has_conflict_markers(text) and self._is_staging():
            raise ManifestError(f"{path} is in conflict; 'theta resolve' settles it")
        return text

    def _is_staging(self) -> bool:
        """Return whether git holds the lock of the index, and puts files into it."""
        index = self.index or self.session.repo.index_path
        return os.path.lexists(f"{index}.lock") and not _gives_up()

    def request_sync(self) -> None:
        """Ask the post-index-change hook to update ``.theta/``."""
        if not self.defer and not self.looking:
            _notes.write(self.session.repo.private / "resync", processes.owner())

    def prepare(self) -> None:
        """Install missing parts once; errors are ignored because the filter must still work."""
        if not self._installed:
            self._installed = True
            with contextlib.suppress(ThetaError):
                installing.ensure(self.session.repo, by_filter=True)
                for line in installing.ensure_durable(self.session.repo):
                    self.warn(line)


def _gives_up() -> bool:
    """Return whether git locks the index to put files back, which stages nothing from the worktree."""
    words = processes.command()
    return "am" in words and not {"--abort", "--skip", "--quit"}.isdisjoint(words)


def _patches() -> bool:
    """Return whether git applies a patch: it writes files before trees, and a hook restores them later."""
    return not {"am", "apply"}.isdisjoint(processes.command())


class Spool:
    """Content that arrives in packets and is compared with the worktree file.

    While the packets equal the file nothing is copied.  At the first difference all content so far and all
    later packets go to a temporary file.
    """

    def __init__(self, place: Path, scratch: Path | None, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._scratch = scratch
        self._size = 0
        self._head = b""
        self._copy: _fs.AppendFile | None = None
        self._file: FileSource | None = None
        with contextlib.suppress(NotFoundError, ThetaError):
            self._file = stack.enter_context(file_source.FileSource(place))
        if self._file is None:
            self._start_copy()

    def add(self, packet: bytes) -> None:
        """Add the next packet."""
        if len(self._head) < len(manifests.MAGIC):
            self._head += packet[: len(manifests.MAGIC)]
        if self._copy is None and not self._as_expected(packet):
            self._start_copy()
        if self._copy is not None:
            self._copy.write(packet)
        self._size += len(packet)

    def _as_expected(self, packet: bytes) -> bool:
        assert self._file is not None
        end = self._size + len(packet)
        return end <= self._file.size and self._file.read(self._size, len(packet)) == packet

    def _start_copy(self) -> None:
        self._copy = _fs.AppendFile(self._scratch)
        self._stack.callback(self._copy.discard)
        for start in range(0, self._size, 1 << 20):
            assert self._file is not None
            self._copy.write(self._file.read(start, min(1 << 20, self._size - start)))

    def source(self) -> FileSource:
        """Return the worktree file or the copy, whichever has the content."""
        if self._copy is None and self._file is not None and self._file.size == self._size:
            return self._file
        if self._copy is None:
            self._start_copy()
        assert self._copy is not None
        return self._stack.enter_context(file_source.FileSource(self._copy.path))

    def text(self) -> bytes | None:
        """Return the content if it is a manifest, otherwise None."""
        if not manifests.looks_like_manifest(self._head) or self._size > manifests.MAX_BYTES:
            return None
        return self.source().read(0, self._size)


def serve(filter_: Filter, lines: PktLines) -> None:
    """Serve git's requests until it closes the pipe."""
    lines.read_keys()
    lines.write_lines(["git-filter-server", "version=2"])
    lines.read_keys()
    lines.write_lines(["capability=clean", "capability=smudge"])
    with contextlib.suppress(EOFError):
        while True:
            _answer(filter_, lines, lines.read_keys())


def _answer(filter_: Filter, lines: PktLines, request: dict[str, str]) -> None:
    path = request.get("pathname", "")
    packets = lines.until_flush()
    try:
        if request.get("command") == "clean":
            pieces: Iterable[bytes | memoryview] = [filter_.clean(path, packets)]
        else:
            pieces = filter_.smudge(path, b"".join(packets))
    except ThetaError as error:
        for _ in packets:
            pass
        filter_.warn(str(error))
        lines.write_lines(["status=error"])
        return
    lines.write_lines(["status=success"])
    lines.write_content(pieces)
    lines.flush()
