"""Some tensors of a merge, computed by a worker and stored into a pack of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from theta import parallel
from theta._version import __version__
from theta.engine import rounds
from theta.engine.executors import Engine
from theta.errors import UsageError
from theta.git import processes
from theta.git.repository import Repository
from theta.merging import computing
from theta.merging.computing import Task
from theta.progress import Progress
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.odb.pack_keeps import Keeps


@dataclass(frozen=True)
class MergePart:
    """Tensors to compute; see :class:`theta.engine.file_parts.Place` for what is not said here.

    Attributes:
        repository: a directory of the repository, as every worker sees it.
        owner: the mark of the process that keeps the packs.
        tasks: what is computed.
        version: the version of theta.
    """

    repository: str
    owner: str
    tasks: tuple[Task, ...]
    version: str = __version__


@dataclass(frozen=True)
class MergedPart:
    """The lines of the tensors, in the order of the tasks, and the pack that has what is new."""

    lines: tuple[Line, ...]
    packs: tuple[str, ...]


def compute(part: MergePart) -> MergedPart:
    """Compute ``part``; its pack is durable when this returns.

    Raises:
        theta.errors.UsageError: this process runs another version of theta.
    """
    if part.version != __version__:
        raise UsageError(f"a worker runs theta {__version__}, and theta {part.version} asked it")
    objects = Objects(Repository.discover(part.repository))
    objects.keeps = Keeps(part.owner)
    lines = list[Line]()
    with parallel.limited(1), objects.writer(keep=True) as pack:
        for task in part.tasks:
            found = computing.compute(objects, task)
            lines.append(found if isinstance(found, Line) else found.write(pack))
    return MergedPart(tuple(lines), objects.keeps.names)


@dataclass(frozen=True)
class MergeWorkers:
    """The workers of ``engine``, which compute what a merge of several tensors is to compute.

    Attributes:
        engine: runs the parts.
        objects: the repository, as this process sees it.
    """

    engine: Engine
    objects: Objects

    def lines(self, tasks: Sequence[Task], progress: Progress | None) -> list[Line] | None:
        """Return the line of each of ``tasks``; None to leave them to threads.

        Raises:
            theta.errors.EngineError: the workers are lost again and again.
        """
        nbytes = sum(task.like.nbytes for task in tasks)
        if not parallel.is_worth_spreading(nbytes) or any(task.made for task in tasks):
            return None  # both factors of an adapter are computed together, and are small
        found: dict[tuple[object, ...], Line] = {}
        parts = sorted(self._parts(tasks), key=_length, reverse=True)
        for part, made in rounds.each(self.engine, compute, parts):
            rounds.adopt(self.objects, made)
            found |= zip((task.key for task in part.tasks), made.lines, strict=True)
            if progress is not None:
                progress(_length(part))
        self.objects.refresh()
        return [found[task.key] for task in tasks]

    def _parts(self, tasks: Sequence[Task]) -> Iterator[MergePart]:
        """Yield parts of ``tasks``, without what only this process can use."""
        most = rounds.part_bytes(sum(task.like.nbytes for task in tasks))
        repository, owner = str(self.objects.repo.top.absolute()), processes.this()
        part: list[Task] = []
        held = 0
        for task in tasks:
            if part and (held + task.like.nbytes > most or len(part) >= rounds.MOST):
                yield MergePart(repository, owner, tuple(part))
                part, held = [], 0
            part.append(replace(task, places=(), outlets=[]))
            held += task.like.nbytes
        if part:
            yield MergePart(repository, owner, tuple(part))


def _length(part: MergePart) -> int:
    return sum(task.like.nbytes for task in part.tasks)
