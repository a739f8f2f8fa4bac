"""The tensors of a file, cut into parts that an executor's workers store, as threads would store them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from theta import parallel
from theta.engine import file_parts, rounds
from theta.engine.executors import Engine
from theta.engine.file_parts import CommonPart, FilePart, StoredPart
from theta.engine.workplace import Workers, Workplace
from theta.formats.layout import Tensor
from theta.progress import Progress
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Line, Manifest
from theta.store.format.tensor_tree import Chunk
from theta.store.odb.objects import Objects
from theta.store.write import layer_plan, scouts
from theta.store.write.guidance import Guidance, Searched
from theta.store.write.tensor_stream import Lines, TensorStream, is_spread


@dataclass(frozen=True)
class Spread(Workers):
    """Workers that store the tensors of one file.

    Attributes:
        place: the file and the manifests that it is compared with.
    """

    place: CommonPart

    @classmethod
    def of(
        cls,
        engine: Engine,
        objects: Objects,
        source: FileSource,
        store: str,
        kept: Manifest | None,
        bases: Sequence[Manifest],
    ) -> Spread:
        """Return the spread of ``source``, which is stored as ``store``."""
        place = CommonPart(
            Workplace.of(objects),
            str(source.path.absolute()),
            source.size,
            source.stat.st_mtime_ns,
            store,
            kept.oid if kept is not None else "",
            tuple(base.oid for base in bases),
        )
        return cls(engine, objects, place)

    def store(
        self,
        stream: TensorStream,
        tensors: Sequence[Tensor],
        expected: Mapping[str, Sequence[Chunk]],
        progress: Progress | None,
    ) -> Lines | None:
        """Store what is new of ``tensors``; None when they are so few that ``stream`` is quicker.

        Raises:
            theta.errors.EngineError: the workers are lost again and again.
            theta.errors.ChangedWhileReadError: the file changed.
        """
        if not parallel.is_worth_spreading(sum(tensor.length for tensor in tensors)):
            return None
        done = _Done(self, {name: tuple(chunks) for name, chunks in expected.items()}, progress)
        first = {tensor.name for tensor in stream.first(tensors)}
        large = [
            tensor for tensor in tensors if tensor.length > layer_plan.SMALL and tensor.name not in first
        ]
        small = [tensor for tensor in tensors if tensor.length <= layer_plan.SMALL]
        # The first tensors tell how the others are searched; those that are spread need not be told.
        done.run([one for one in tensors if one.name in first], Guidance(), within=len(first) // 2 + 1)
        told = Guidance(scouts.are_plain(done.searched), comparing=bool(done.new))
        done.run(large, told)
        # Small tensors are compared if others are large enough; else all of them together decide that.
        told = Guidance(told.found_none, comparing=bool(done.new))
        done.run(small, told, within=rounds.MOST if told.comparing else len(small))
        stream.prove()
        return done.lines(tensors)


class _Done:
    """The parts of one file that were stored."""

    def __init__(
        self, spread: Spread, expected: Mapping[str, tuple[Chunk, ...]], progress: Progress | None
    ) -> None:
        self._spread, self._expected, self._progress = spread, expected, progress
        self._found: dict[str, Line] = {}
        self.new: set[str] = set()
        self.searched = Searched()
        self._nbytes = 0

    def run(self, tensors: Sequence[Tensor], guidance: Guidance, within: int = rounds.MOST) -> None:
        """Store ``tensors``, at most ``within`` a part."""
        todo = [self._part(cut, guidance) for cut in rounds.cut(tensors, _tensor_length, within, is_spread)]
        for _, made in self._spread.stored(file_parts.store, todo, self._progress):
            self._note(made)

    def _part(self, tensors: Sequence[Tensor], guidance: Guidance) -> FilePart:
        known = {one.name: self._expected[one.name] for one in tensors if one.name in self._expected}
        return FilePart(self._spread.place, tuple(tensors), guidance, known)

    def _note(self, made: StoredPart) -> None:
        self._found |= {line.name: line for line in made.lines}
        self.new |= set(made.new)
        self.searched += made.searched
        self._nbytes += made.nbytes

    def lines(self, tensors: Iterable[Tensor]) -> Lines:
        """Return the lines of ``tensors``; raises :class:`MissingObjectsError` if a tree is not here."""
        names = [tensor.name for tensor in tensors]
        new = [name for name in names if name in self.new]
        self._spread.require_here(self._found[name] for name in new)
        return Lines([self._found[name] for name in names], new, self.searched, self._nbytes)


def _tensor_length(tensor: Tensor) -> int:
    return tensor.length
