"""Some tensors of a mean, computed by a worker and stored into a pack of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from theta import parallel
from theta.engine import rounds
from theta.engine.file_parts import manifest_of
from theta.engine.merge_parts import MergedPart
from theta.engine.workplace import Workers, Workplace
from theta.merging.averages import Averaging
from theta.progress import Progress
from theta.store.format.manifest import Line


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


def compute(part: AveragePart) -> MergedPart:
    """Compute ``part``; its pack is durable when this returns.

    Raises:
        theta.errors.UsageError: this process runs another version of theta.
    """
    objects = part.workplace.opened()
    manifests = [manifest_of(part.workplace.repository, oid) for oid in part.versions]
    averaging = Averaging(objects, manifests, part.factors)
    with parallel.limited(1), objects.writer(keep=True) as pack:
        lines = tuple(averaging.stored(pack, averaging.like.by_name[name]) for name in part.names)
    return MergedPart(lines, objects.keeps.names)


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

    def _part(self, lines: Sequence[Line]) -> AveragePart:
        names, length = tuple(line.name for line in lines), sum(map(_length, lines))
        place = Workplace.of(self.objects)
        return AveragePart(place, tuple(self.versions), tuple(self.factors), names, length)


def _length(line: Line) -> int:
    return line.nbytes
