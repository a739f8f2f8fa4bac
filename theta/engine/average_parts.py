"""Some tensors of a mean, computed by a worker and stored into a pack of its own, or written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from theta import parallel
from theta.engine import restore_parts, rounds
from theta.engine.file_parts import manifest_of
from theta.engine.merge_parts import MergedPart
from theta.engine.restore_parts import ComingPlace
from theta.engine.workplace import Workers, Workplace
from theta.merging.averages import Averaging
from theta.progress import Progress
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.read.coming_file import ComingFile


@dataclass(frozen=True)
class AveragePart:
    """Tensors to average.

    Attributes:
        workplace: the repository.
        versions: the ids of the manifests, the oldest first.
        factors: how much each counts.
        names: the tensors.
        length: raw bytes of the result.
    """

    workplace: Workplace
    versions: tuple[str, ...]
    factors: tuple[float, ...]
    names: tuple[str, ...]
    length: int

    def averaging(self, objects: Objects) -> Averaging:
        """Return the mean, in a worker."""
        manifests = [manifest_of(self.workplace.repository, oid) for oid in self.versions]
        return Averaging(objects, manifests, self.factors)


@dataclass(frozen=True)
class WrittenPart:
    """Tensors to average, and the file where their means belong."""

    mean: AveragePart
    place: ComingPlace

    @property
    def length(self) -> int:
        """Raw bytes of the result."""
        return self.mean.length


def compute(part: AveragePart) -> MergedPart:
    """Compute ``part``; its pack is durable when this returns.

    Raises:
        theta.errors.UsageError: this process runs another version of theta.
    """
    objects = part.workplace.opened()
    averaging = part.averaging(objects)
    with parallel.limited(1), objects.writer(keep=True) as pack:
        lines = tuple(averaging.stored(pack, averaging.like.by_name[name]) for name in part.names)
    return MergedPart(lines, objects.keeps.names)


def write(part: WrittenPart) -> int:
    """Write ``part`` to its places; return the bytes, which are durable on another machine.

    Raises:
        theta.errors.EngineError: the file is not the one that was begun.
        theta.errors.UsageError: this process runs another version of theta.
    """
    mean, written = part.mean, 0
    averaging = mean.averaging(mean.workplace.opened())
    _, offsets = restore_parts.told(mean.workplace.repository, mean.versions[-1])
    with parallel.limited(1), part.place.opened() as file:
        for name in mean.names:
            for offset, raw in averaging.patches(averaging.like.by_name[name]):
                for start in offsets[name]:
                    file.patch(start + offset, raw)
                written += len(raw)
    return written


@dataclass(frozen=True)
class AverageWorkers(Workers):
    """Workers that compute a mean.

    Attributes:
        versions: the ids of the manifests, the oldest first.
        factors: how much each counts.
    """

    versions: Sequence[str]
    factors: Sequence[float]

    def lines(self, work: Sequence[Line], progress: Progress | None) -> dict[str, Line] | None:
        """Return name -> line of the mean of each tensor; None to leave them to threads.

        Raises:
            theta.errors.EngineError: the workers are lost again and again.
        """
        if not parallel.is_worth_spreading(sum(map(_length, work))):
            return None
        found: dict[str, Line] = {}
        parts = [self._part(cut) for cut in rounds.cut(work, _length)]
        for part, made in self.stored(compute, parts, progress):
            found |= zip(part.names, made.lines, strict=True)
        self.require_here(found.values())
        return found

    def write(self, work: Sequence[Line], coming: ComingFile, progress: Progress | None) -> bool:
        """Write the mean of each tensor to its places in ``coming``; return False to leave them to threads.

        Raises:
            theta.errors.EngineError: the workers are lost again and again.
        """
        place = ComingPlace.of(coming)
        if place is None or not parallel.is_worth_spreading(sum(map(_length, work))):
            return False
        parts = [WrittenPart(self._part(cut), place) for cut in rounds.cut(work, _length)]
        for _ in rounds.each(self.engine, write, parts, progress):
            pass
        return True

    def _part(self, lines: Sequence[Line]) -> AveragePart:
        names, length = tuple(line.name for line in lines), sum(map(_length, lines))
        place = Workplace.of(self.objects)
        return AveragePart(place, tuple(self.versions), tuple(self.factors), names, length)


def _length(line: Line) -> int:
    return line.nbytes
