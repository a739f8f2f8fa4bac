"""One transaction: objects, then the index, then refs; each is durable before the next one names it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from theta.git.index import IndexEdit
from theta.git.repository import Repository
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter


class Change:  # of a repository; store.changes.Change is that of one tensor
    """What one step of a command writes; use ``with``.

    At the end of the block the objects become durable, the index is written, and refs move, in this
    order.  When the block raises, none of it is done, but for objects that :meth:`store` made durable.
    """

    def __init__(self, repo: Repository, objects: Objects, index: Path, scratch: Callable[[], Path]) -> None:
        self._repo, self._objects, self._file, self._scratch = repo, objects, index, scratch
        self._open = ExitStack()
        self._pack: PackWriter | None = None
        self._edit: IndexEdit | None = None
        self._moves: list[tuple[str, str, str, str]] = []

    @property
    def pack(self) -> PackWriter:
        """The pack that new objects go to."""
        if self._pack is None:
            self._open.callback(self._objects.refresh)
            self._pack = self._open.enter_context(self._objects.writer())
        return self._pack

    def store(self) -> None:
        """Make durable what the pack holds; from here on it can be read."""
        if self._pack is not None:
            self._pack.finish()
            self._pack = None
            self._objects.refresh()

    @property
    def index(self) -> IndexEdit:
        """The index, locked; what the pack holds is durable."""
        self.store()
        if self._edit is None:
            self._edit = self._open.enter_context(IndexEdit(self._file, self._scratch()))
        return self._edit

    def move(self, ref: str, new: str, old: str, reason: str) -> None:
        """Let ``ref`` name ``new`` at the end, if it names ``old`` then."""
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
