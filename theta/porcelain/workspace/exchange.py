"""Checkpoint files of the worktree that a command replaces: the old ones, and the coming ones."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from theta import _fs, _room
from theta.errors import ThetaError
from theta.lazy import Module
from theta.porcelain.workspace.session import Session
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Manifest

if TYPE_CHECKING:
    from concurrent.futures import Future

    from theta.store.format.skeleton import Skeleton
    from theta.store.read import coming_file, reassembly
    from theta.store.read.coming_file import ComingFile, Place
else:
    coming_file = Module("theta.store.read.coming_file")
    reassembly = Module("theta.store.read.reassembly")

_MOST_HELD: Final = 256
"""Files held open at once; the rest is decoded."""
_WORTH_IMPORTING: Final = 64 << 20
"""Bytes of files that may be written for which everything is imported while git runs."""


class Exchange:
    """Old files that stay open, and coming files that nobody has taken: until the ``with`` block ends.

    It outlives a :meth:`Session.again`: both are views of one worktree.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open = ExitStack()
        self._old: dict[str, FileSource] = {}
        self._at: dict[str, Manifest] = {}
        self._closing: Future[None] | None = None
        self._coming: dict[str, ComingFile] = {}

    # -- old files -----------------------------------------------------------------------------

    def hold(self, paths: Collection[str] | None = None) -> Self:
        """Open the files that are known to be checkpoints: those at ``paths``, or those that are staged.

        Their room is not given back meanwhile, so that they are held only if as much is left.
        """
        left = _room.left(self._session.repo.worktree)
        for path, one in self._session.files.items():
            wanted = self._session.index.oid(path) == one.oid if paths is None else path in paths
            manifest = self._session.manifest_or_none(one.oid) if wanted else None
            if manifest is not None and len(self._at) < _MOST_HELD:
                with suppress(ThetaError):
                    source = self._open.enter_context(FileSource(self._session.repo.worktree / path, path))
                    if source.size > left:
                        break
                    left -= source.size
                    self._old[one.oid], self._at[path] = source, manifest
        if sum(source.size for source in self._old.values()) >= _WORTH_IMPORTING:
            _fs.aside(lambda: reassembly.prepare())  # the lambda imports the module on the thread too
        return self

    def old(self, manifest: Manifest) -> FileSource | None:
        """Return the file that held ``manifest``; chunks that are read there are to be checked."""
        return self._old.get(manifest.oid)

    def places(self, path: str, manifest: Manifest) -> dict[str, Place]:
        """Return the places of tensors of ``manifest``, or of other values of them, in the old file there."""
        before = self._at.get(path)
        if before is None:
            return {}
        found = coming_file.places(self._session.objects, before, self.old(before))
        return {name: place for name, place in found.items() if name in manifest.by_name}

    def release(self) -> None:
        """Begin to close the old files: the system takes its time to give back the room of replaced ones."""
        self._old.clear()
        self._at.clear()
        if self._closing is None:
            self._closing = _fs.aside(self._open.close)

    def _released(self) -> None:
        """Wait until they are closed: the room that replaced ones take is free again."""
        self.release()
        assert self._closing is not None
        self._closing.result()

    # -- coming files --------------------------------------------------------------------------

    def begin(self, path: str, skeleton: str, plan: Skeleton) -> ComingFile | None:
        """Begin the file at ``path`` by its skeleton; return None when there is no room for it.

        What was there before is still held open, and will make room.
        """
        place = _fs.safe_target(self._session.repo.worktree, path)
        self._discard(path)
        wanted = plan.size + sum(coming.size for coming in self._coming.values())
        if wanted > _room.left(place.parent):
            return None
        self._coming[path] = self._new(place, skeleton, plan)
        return self._coming[path]

    def take(self, path: str, skeleton: str, plan: Skeleton) -> ComingFile:
        """Hand over the file at ``path``, begun before or now.

        Raises :class:`NoSpaceError` when there is no room for it.
        """
        coming = self._coming.pop(path, None)
        if coming is not None and coming.skeleton == skeleton:
            return coming
        if coming is not None:
            coming.file.discard()
        place = _fs.safe_target(self._session.repo.worktree, path)
        if plan.size > _room.left(place.parent):
            self._released()
        _room.require(place.parent, plan.size)
        before = self._at.get(path)
        return self._new(place, skeleton, plan, self.old(before) if before else None)

    @property
    def is_begun(self) -> bool:
        """Whether some of the coming files are begun."""
        return bool(self._coming)

    def sync(self) -> None:
        """Begin to make durable what is written, while git does its part."""
        for coming in self._coming.values():
            coming.file.begin_sync()

    def _new(
        self, place: Path, skeleton: str, plan: Skeleton, replaced: FileSource | None = None
    ) -> ComingFile:
        file = begun(self._session, place)
        try:
            return coming_file.ComingFile(file, skeleton, plan, replaced)
        except BaseException:
            file.discard()
            raise

    def _discard(self, path: str) -> None:
        if (coming := self._coming.pop(path, None)) is not None:
            coming.file.discard()

    # -- both ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in list(self._coming):
            self._discard(path)
        self._released()


def begun(session: Session, place: Path) -> _fs.AtomicFile:
    """Return a file that is going to be at ``place``, and has a name until then that others may open.

    If the process is killed, the next command removes it, unless it is on another disk than the repository.
    """
    scratch = session.scratch()
    alike = os.stat(scratch).st_dev == os.stat(place.parent).st_dev
    return _fs.AtomicFile(place, temp_dir=scratch if alike else place.parent)
