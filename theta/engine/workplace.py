"""The repository that the workers of an engine share with the process which asked them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

from theta import _memory
from theta._version import __version__
from theta.engine import rounds
from theta.engine.executors import Engine
from theta.engine.rounds import WorkPart
from theta.errors import MissingObjectsError, UsageError
from theta.git import processes
from theta.git.repository import Repository
from theta.progress import Progress
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.odb.pack_keeps import Keeps


@dataclass(frozen=True)
class Workplace:
    """A repository as every worker sees it.

    Attributes:
        repository: a directory of it.
        owner: the mark of the process that keeps the packs until it has named what they hold.
        version: the version of theta; other workers are refused.
    """

    repository: str
    owner: str
    version: str = __version__

    @classmethod
    def of(cls, objects: Objects) -> Workplace:
        """Return the workplace of this process."""
        return cls(str(objects.repo.top.absolute()), processes.this())

    def opened(self) -> Objects:
        """Return the objects, as a worker sees them; its packs are kept for the owner.

        Raises:
            theta.errors.UsageError: this process runs another version of theta.
        """
        if self.version != __version__:
            raise UsageError(f"a worker runs theta {__version__}, and theta {self.version} asked it")
        if self.owner != processes.this():
            _keep_memory()
        objects = Objects(Repository.discover(self.repository))
        objects.keeps = Keeps(self.owner)
        return objects


@cache
def _keep_memory() -> None:
    """Let this worker keep freed memory, as the command does: Dask tells its own to give all of it back."""
    _memory.one_heap()


class Packed(Protocol):
    """A part that a worker has stored."""

    @property
    def packs(self) -> Sequence[str]:
        """The names of its packs, without a suffix."""
        ...


W = TypeVar("W", bound=WorkPart)
K = TypeVar("K", bound=Packed)


@dataclass(frozen=True)
class Workers:
    """The workers of an engine, in the repository of this process.

    Attributes:
        engine: runs the parts.
        objects: the repository, as this process sees it.
    """

    engine: Engine
    objects: Objects

    def stored(
        self, work: Callable[[W], K], parts: Sequence[W], progress: Progress | None
    ) -> Iterator[tuple[W, K]]:
        """Yield the parts with what ``work`` stored for them, as :func:`theta.engine.rounds.each` does.

        Their packs are kept from ``git repack`` until what they hold is named.
        """
        for part, made in rounds.each(self.engine, work, parts, progress):
            for name in made.packs:
                self.objects.keeps.adopt(self.objects.directory / Path(name).name)
            yield part, made

    def require_here(self, lines: Iterable[Line]) -> None:
        """Raise :class:`MissingObjectsError` unless the trees of ``lines``, which workers wrote, are here."""
        self.objects.refresh()
        for line in lines:
            if not self.objects.has(line.tree):
                told = f"a worker stored {line.name}, and it is not in this repository"
                raise MissingObjectsError(told, hint="workers are to see the same files as this machine")
