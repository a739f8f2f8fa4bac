"""Checkpoint files of the worktree around a merge: what they were, and what they become.

Git replaces the file of a checkpoint in conflict by text.  Who opens it before can go on reading it:
raw bytes are had for a tenth of what decoding takes.  And a merged tensor that is in memory is written
to its place in the coming file at once, instead of being decoded again when all is done.
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
from theta.store.format.manifest import Manifest, blob_id

_MOST_HELD: Final = 256
"""Files held open at once; the rest is decoded."""


class Held:
    """The files of the worktree that are known to hold what is staged, kept open; use ``with``."""

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
        """The file that held ``manifest``; chunks that are read there are to be checked."""
        return self._by_manifest.get(blob_id(manifest.data))

    def release(self) -> None:
        """Begin to close them; to give back the room that replaced ones take is work for the system."""
        self._by_manifest.clear()
        if self._closing is None:
            self._closing = _fs.aside(self._open.close)

    def released(self) -> None:
        """Wait until they are closed: the room that replaced ones take is free again."""
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
    """The temporary of a coming file of ``size`` bytes."""

    def __init__(self, file: _fs.AtomicFile, size: int) -> None:
        self.file, self.size = file, size
        self._skeleton = ""
        self._done: dict[str, str] = {}

    def put(self, offset: int, data: _fs.Buffer) -> None:
        """Write ``data`` at ``offset``."""
        self.file.patch(offset, data)

    def framed(self, skeleton: str) -> None:
        """Note that all literal bytes of this skeleton are written."""
        self._skeleton = skeleton

    def done(self, name: str, digest: str) -> None:
        """Note that all of tensor ``name`` is written, and its digest."""
        self._done[name] = digest

    def begun(self, manifest: Manifest) -> Begun:
        """The file, with the tensors of ``manifest`` that are written."""
        done = (line.name for line in manifest.lines if self._done.get(line.name) == line.digest)
        return Begun(self.file, frozenset(done), self._skeleton == manifest.skeleton)


class Drafts:
    """The files that a merge is making; what is not taken is discarded at the end of the ``with`` block.

    ``held`` are the files of the worktree that take room until they are released.
    """

    def __init__(self, session: Session, held: Held | None = None) -> None:
        self._session, self._held = session, held
        self._open: dict[str, FileDraft] = {}

    def begin(self, path: str, size: int) -> FileDraft | None:
        """A draft of the file at ``path``, of ``size`` bytes; none where there is no room for it."""
        place = _fs.safe_target(self._session.repo.worktree, path)
        self._discard(path)
        wanted = size + sum(draft.size for draft in self._open.values())
        if wanted > _room.left(place.parent):
            return None  # what was there before is still held open, and will make room
        self._open[path] = FileDraft(worktree.new_file(self._session, place), size)
        return self._open[path]

    def take(self, path: str, manifest: Manifest) -> Begun | None:
        """What there is of the file at ``path`` that is to hold ``manifest``; the caller's from now on.

        Where there is none, all the room that there can be for it is free.
        """
        draft = self._open.pop(path, None)
        if draft is None and self._held is not None:
            self._held.released()
        return draft.begun(manifest) if draft else None

    def sync(self) -> None:
        """Begin to make durable what is written, while git does its part."""
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
    """What a merge may read and write in the worktree: nothing, where it happens in memory."""

    held: Held | None = None
    drafts: Drafts | None = None

    def options(self, options: MergeOptions, path: str, sides: Sequence[Manifest]) -> MergeOptions:
        """``options`` for the merge of ``sides`` into the file at ``path``."""
        if self.held is not None:
            options = replace(options, files=tuple(self.held.source(side) for side in sides))
        if self.drafts is not None:
            options = replace(options, draft=partial(self.drafts.begin, path))
        return options


IN_MEMORY: Final = Files()
"""Of a merge that has no worktree."""
