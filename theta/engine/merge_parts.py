"""Some tensors of a merge, computed by a worker and stored into a pack of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from theta import parallel
from theta.engine import rounds
from theta.engine.workplace import Workers, Workplace
from theta.merging import computing
from theta.merging.computing import Task
from theta.progress import Progress
from theta.store.format.manifest import Line


@dataclass(frozen=True)
class MergePart:
    """Tensors to compute, and the repository where they are."""

    workplace: Workplace
    tasks: tuple[Task, ...]

    @property
    def length(self) -> int:
        """Raw bytes of the result."""
        return sum(map(_length, self.tasks))


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
    objects = part.workplace.opened()
    lines = list[Line]()
    with parallel.limited(1), objects.writer(keep=True) as pack:
        for task in part.tasks:
            found = computing.compute(objects, task)
            lines.append(found if isinstance(found, Line) else found.write(pack))
    return MergedPart(tuple(lines), objects.keeps.names)


class MergeWorkers(Workers):
    """Workers that compute what a merge of several tensors is to compute."""

    def lines(self, tasks: Sequence[Task], progress: Progress | None) -> list[Line] | None:
        """Return the line of each of ``tasks``; None to leave them to threads.

        Raises:
            theta.errors.EngineError: the workers are lost again and again.
        """
        nbytes = sum(task.like.nbytes for task in tasks)
        if not parallel.is_worth_spreading(nbytes) or any(task.made for task in tasks):
            return None  # both factors of an adapter are computed together, and are small
        found: dict[tuple[object, ...], Line] = {}
        place = Workplace.of(self.objects)
        cuts = rounds.cut([replace(task, places=(), outlets=[]) for task in tasks], _length)
        parts = [MergePart(place, tuple(cut)) for cut in cuts]
        for part, made in self.stored(compute, parts, progress):
            found |= zip((task.key for task in part.tasks), made.lines, strict=True)
        self.require_here(found.values())
        return [found[task.key] for task in tasks]


def _length(task: Task) -> int:
    return task.like.nbytes
