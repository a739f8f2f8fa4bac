"""One transaction: write objects, then the index, then refs, each durable before the next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from theta.git.repository import Repository
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

if TYPE_CHECKING:
    from theta.git.backends.protocols import EditedIndex


class Change:  # of a repository; store.changes.Change is that of one tensor
    """The writes of one step of a command; a context manager.

    At the end of the block the objects become durable, the index is written, and refs move, in this
    order.  If the block raises, nothing is written except objects that :meth:`store` made durable.
    """

    def __init__(self, repo: Repository, objects: Objects, index: Path, scratch: Callable[[], Path]) -> None:
        self._repo, self._objects, self._file, self._scratch = repo, objects, index, scratch
        self._open = ExitStack()
        self._pack: PackWriter | None = None
        self._edit: EditedIndex | None = None
        self._moves: list[tuple[str, str, str, str]] = []

    @property
    def pack(self) -> PackWriter:
        """The writer of new objects."""
        if self._pack is None:
            self._open.callback(self._objects.refresh)
            self._pack = self._open.enter_context(self._objects.writer())
        return self._pack

    def store(self) -> None:
        """Make the objects of the pack durable and readable."""
        if self._pack is not None:
            self._pack.finish()
            self._pack = None
            self._objects.refresh()

    @property
    def index(self) -> EditedIndex:
        """The index for editing, locked; the objects of the pack are durable by then."""
        self.store()
        if self._edit is None:
            self._edit = self._open.enter_context(self._repo.edit_index(self._file, self._scratch()))
        return self._edit

    def move(self, ref: str, new: str, old: str, reason: str) -> None:
        """Move ``ref`` to ``new`` at the end, if it is still ``old``."""
        self._moves.append((reason, ref, new, old))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if kind is None:
            for reason, ref, new, old in self._moves:
                self._repo.git().run("update-ref", "-m", reason, ref, new, old)
