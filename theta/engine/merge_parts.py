"""Some tensors of a merge, computed by a worker and stored into a pack of its own.

Like threads, a worker reads what the old files of the worktree have, and writes the result to its places in
the coming file too: to decode it again takes as long as to compute it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from theta import _fs, parallel
from theta.engine import rounds
from theta.engine.held_places import HeldFiles, HeldPlace
from theta.engine.restore_parts import ComingPlace
from theta.engine.workplace import Workers, Workplace
from theta.merging import computing
from theta.merging.computing import Task
from theta.merging.engine import Delivered, Sink
from theta.merging.storing import Outlet
from theta.progress import Progress
from theta.store.format.manifest import Line
from theta.store.read.coming_file import ComingFile


@dataclass(frozen=True)
class PlacedTask:
    """A tensor to compute.

    Attributes:
        task: what is computed; without places and outlets, which are those of another process.
        inputs: for each input, where a file may have its bytes.
        starts: where the tensor, and those that are tied to it, begin in the coming file.
    """

    task: Task
    inputs: tuple[HeldPlace | None, ...] = ()
    starts: tuple[int, ...] = ()

    @classmethod
    def of(cls, task: Task, coming: ComingFile | None) -> PlacedTask:
        """Return what a worker needs to know of ``task``."""
        inputs = tuple(map(HeldPlace.of, task.places))
        named = [] if coming is None else [coming.starts(outlet.name) for outlet in task.outlets]
        return cls(replace(task, places=(), outlets=[]), inputs, tuple(chain.from_iterable(named)))

    @property
    def length(self) -> int:
        """Raw bytes of the result."""
        return self.task.like.nbytes

    def here(self, held: HeldFiles, file: _fs.PatchedFile | None) -> Task:
        """Return the task in a worker, which has ``held`` old files open, and the coming ``file``."""
        pairs = zip(self.inputs, self.task.sides, strict=False)
        places = tuple(held.place(place, side) for place, side in pairs)
        outlets = [] if file is None else [Outlet(partial(_put, file, self.starts), self.task.like.name)]
        return replace(self.task, places=places, outlets=outlets)


@dataclass(frozen=True)
class MergePart:
    """Tensors to compute.

    Attributes:
        workplace: the repository where they are.
        tasks: the tensors.
        coming: the file where they belong as well, if there is one.
    """

    workplace: Workplace
    tasks: tuple[PlacedTask, ...]
    coming: ComingPlace | None = None

    @property
    def length(self) -> int:
        """Raw bytes of the result."""
        return sum(one.length for one in self.tasks)

    @contextlib.contextmanager
    def opened(self) -> Iterator[list[Task]]:
        """Open the files that the tensors are read of and written to, in a worker; yield its tasks."""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self.coming.opened()) if self.coming is not None else None
            held = stack.enter_context(HeldFiles())
            yield [one.here(held, file) for one in self.tasks]


@dataclass(frozen=True)
class MergedPart:
    """The tensors, in the order of the tasks, and the pack that has what is new."""

    lines: tuple[Line, ...]
    packs: tuple[str, ...]
    put: tuple[bool, ...] = ()


def compute(part: MergePart) -> MergedPart:
    """Compute ``part``; its pack is durable when this returns.

    Raises:
        theta.errors.EngineError: the coming file is not the one that was begun.
        theta.errors.UsageError: this process runs another version of theta.
    """
    objects = part.workplace.opened()
    lines, put = list[Line](), list[bool]()
    with parallel.limited(1), part.opened() as tasks, objects.writer(keep=True) as pack:
        for task in tasks:
            found = computing.compute(objects, task)
            put.append(not isinstance(found, Line) and bool(task.outlets))
            lines.append(found if isinstance(found, Line) else found.write(pack))
    return MergedPart(tuple(lines), objects.keeps.names, tuple(put))


class MergeWorkers(Workers):
    """Workers that compute what a merge of several tensors is to compute."""

    def deliver(
        self, tasks: Sequence[Task], sink: Sink | None, progress: Progress | None
    ) -> list[Delivered] | None:
        """Compute and store each of ``tasks``; None to leave them to threads.

        The results are written to the file of ``sink`` too, if it has a name by which workers find it.

        Raises:
            theta.errors.EngineError: the workers are lost again and again.
        """
        nbytes = sum(task.like.nbytes for task in tasks)
        if not parallel.is_worth_spreading(nbytes) or any(task.made for task in tasks):
            return None  # both factors of an adapter are computed together, and are small
        found: dict[tuple[object, ...], Delivered] = {}
        for part, made in self.stored(compute, self._parts(tasks, sink), progress):
            keys = (one.task.key for one in part.tasks)
            found |= zip(keys, map(Delivered, made.lines, made.put), strict=True)
        self.require_here(one.line for one in found.values())
        return [found[task.key] for task in tasks]

    def _parts(self, tasks: Sequence[Task], sink: Sink | None) -> list[MergePart]:
        coming = sink if isinstance(sink, ComingFile) else None
        file = ComingPlace.of(coming) if coming is not None else None
        placed = [PlacedTask.of(task, coming if file is not None else None) for task in tasks]
        where = Workplace.of(self.objects)
        return [MergePart(where, tuple(cut), file) for cut in rounds.cut(placed, _length)]


def _put(
    file: _fs.PatchedFile, starts: Sequence[int], _name: str, offset: int, data: bytes | memoryview
) -> None:
    """Write ``data``, which begins at ``offset`` of a tensor, to all places of it in ``file``."""
    for start in starts:
        file.patch(start + offset, data)


def _length(one: PlacedTask) -> int:
    return one.length
