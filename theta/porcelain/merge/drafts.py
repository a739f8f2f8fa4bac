"""The checkpoint files of the worktree before and after a merge.

Git replaces the file of a checkpoint in conflict by text.  A file that was opened before can still be
read: raw bytes cost a tenth of decoding.  And a merged tensor that is in memory is written to its place
in the new file at once; otherwise it would be decoded again after the merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Final, Self

from theta import _fs, _room
from theta.errors import ThetaError
from theta.merging.engine import MergeOptions
from theta.merging.sinks import Draft
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session
from theta.porcelain.workspace.worktree import Begun
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Manifest

_MOST_HELD: Final = 256
"""The largest number of files held open; tensors of other files are decoded."""


class Held:
    """The files of the worktree that agree with the index, held open; a context manager."""

    def __init__(self, session: Session) -> None:
        self._open = ExitStack()
        self._closing: Future[None] | None = None
        self._by_manifest: dict[str, FileSource] = {}
        for path, one in session.files.items():
            if len(self._by_manifest) < _MOST_HELD and session.index.oid(path) == one.oid:
                with suppress(ThetaError):
                    source = FileSource(session.repo.worktree / path, path)
                    self._by_manifest[one.oid] = self._open.enter_context(source)

    def source(self, manifest: Manifest) -> FileSource | None:
        """Return the file that held ``manifest``, or None; the caller must check chunks it reads there."""
        return self._by_manifest.get(manifest.oid)

    def release(self) -> None:
        """Start to close the files in the background; freeing large replaced files takes time."""
        self._by_manifest.clear()
        if self._closing is None:
            self._closing = _fs.aside(self._open.close)

    def released(self) -> None:
        """Close the files and wait: the disk space of replaced files is then free."""
        self.release()
        assert self._closing is not None
        self._closing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released()


class FileDraft(Draft):
    """The temporary file of a new checkpoint file of ``size`` bytes."""

    def __init__(self, file: _fs.AtomicFile, size: int) -> None:
        self.file, self.size = file, size
        self._skeleton = ""
        self._done: dict[str, str] = {}

    def put(self, offset: int, data: _fs.Buffer) -> None:
        """Write ``data`` at ``offset``."""
        self.file.patch(offset, data)

    def framed(self, skeleton: str) -> None:
        """Note that all literal bytes of ``skeleton`` are written."""
        self._skeleton = skeleton

    def done(self, name: str, digest: str) -> None:
        """Note that all bytes of tensor ``name`` are written, with their digest."""
        self._done[name] = digest

    def begun(self, manifest: Manifest) -> Begun:
        """Return the file and the parts of ``manifest`` that are already in it."""
        done = (line.name for line in manifest.lines if self._done.get(line.name) == line.digest)
        return Begun(self.file, frozenset(done), self._skeleton == manifest.skeleton)


class Drafts:
    """The new files of a merge; a context manager that discards those not taken.

    ``held`` are old files of the worktree, which occupy disk space until they are released.
    """

    def __init__(self, session: Session, held: Held | None = None) -> None:
        self._session, self._held = session, held
        self._open: dict[str, FileDraft] = {}

    def begin(self, path: str, size: int) -> FileDraft | None:
        """Start a draft of the file at ``path``, of ``size`` bytes; None when the disk has no room for it."""
        place = _fs.safe_target(self._session.repo.worktree, path)
        self._discard(path)
        wanted = size + sum(draft.size for draft in self._open.values())
        if wanted > _room.left(place.parent):
            return None  # the old file is still held open; closing it frees its space
        self._open[path] = FileDraft(worktree.new_file(self._session, place), size)
        return self._open[path]

    def take(self, path: str, manifest: Manifest) -> Begun | None:
        """Hand over the draft of the file at ``path`` that is to hold ``manifest``; None without a draft.

        Without a draft the held files are closed first, so that their disk space is free.
        """
        draft = self._open.pop(path, None)
        if draft is None and self._held is not None:
            self._held.released()
        return draft.begun(manifest) if draft else None

    def sync(self) -> None:
        """Start to sync the drafts to disk in the background."""
        for draft in self._open.values():
            draft.file.begin_sync()

    def _discard(self, path: str) -> None:
        if (draft := self._open.pop(path, None)) is not None:
            draft.file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in list(self._open):
            self._discard(path)


@dataclass(frozen=True)
class Files:
    """The files of the worktree that a merge may read and write; empty for a merge in memory."""

    held: Held | None = None
    drafts: Drafts | None = None

    def options(self, options: MergeOptions, path: str, sides: Sequence[Manifest]) -> MergeOptions:
        """Return ``options`` completed for the merge of ``sides`` into the file at ``path``."""
        if self.held is not None:
            options = replace(options, files=tuple(self.held.source(side) for side in sides))
        if self.drafts is not None:
            options = replace(options, draft=partial(self.drafts.begin, path))
        return options


IN_MEMORY: Final = Files()
"""For a merge without a worktree."""
