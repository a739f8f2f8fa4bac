"""From a manifest to bytes: the skeleton's table is run, every chunk checked by its digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from typing import Final, Protocol

from theta.errors import CorruptError
from theta.formats.derived import arguments, derive
from theta.formats.layout import Source
from theta.parallel import ordered
from theta.progress import Progress
from theta.store.format import skeleton as skeletons
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Extent, Field, Literal, Skeleton
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import Objects
from theta.store.read import layers
from theta.store.read.layers import Budget
from theta.store.read.stored_tensor import StoredTensor
from theta.store.read.tensor_records import record_of

MAX_TOTAL: Final = 1 << 44
"""Bytes that one checkpoint may declare (16 TiB): constant chunks amplify, so there is a cap."""


class Output(Source, Protocol):
    """What a checkpoint is written to: front to back, then fields that follow from the rest."""

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        ...

    def skip(self, length: int) -> None:
        """Leave out ``length`` bytes that are there already; what is appended next comes behind them."""
        ...

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrite written bytes at ``offset``."""
        ...


class Memory:
    """A :class:`Output` in memory."""

    def __init__(self) -> None:
        self.content = bytearray()

    @property
    def size(self) -> int:
        """The number of bytes written so far."""
        return len(self.content)

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        self.content += data

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` of the written content."""
        return bytes(self.content[offset : offset + length])

    def skip(self, length: int) -> None:
        """Append ``length`` zeros."""
        self.content += bytes(length)

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrite written bytes at ``offset``."""
        self.content[offset : offset + len(data)] = data


class Restorer:
    """Reads checkpoints out of a repository."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def size(self, manifest: Manifest) -> int:
        """Bytes of the file that ``manifest`` stands for."""
        return self._plan(manifest).size

    def _plan(self, manifest: Manifest) -> Skeleton:
        plan = skeletons.read(self._objects, manifest.skeleton)
        left = {line.name for line in manifest.lines if line.nbytes}
        for segment in plan.segments:
            if isinstance(segment, Extent):
                line = manifest.by_name.get(segment.name)
                if line is None or line.nbytes != segment.length:
                    raise CorruptError(f"the skeleton and the manifest disagree about {segment.name[:80]!r}")
                left.discard(segment.name)
        if left:
            raise CorruptError(f"the skeleton has no place for {min(left)[:80]!r}")
        if plan.size > MAX_TOTAL:
            raise CorruptError(f"the checkpoint declares {plan.size} bytes, over the limit of {MAX_TOTAL}")
        return plan

    def write(
        self,
        manifest: Manifest,
        target: Output,
        progress: Progress | None = None,
        present: Set[str] = frozenset(),
        *,
        framed: bool = False,
    ) -> None:
        """Write the file that ``manifest`` stands for to ``target``.

        It is empty, or holds the tensors ``present`` in their places, and the literal bytes if it is
        ``framed``.  Raises :class:`CodecError` before the first byte where its tensors declare too much work.
        """
        plan = self._plan(manifest)
        records = self._records(plan, manifest.by_name, present)
        for piece in ordered(lambda task: task(), self._tasks(plan, records, present, framed)):
            if isinstance(piece, int):
                target.skip(piece)
            else:
                target.write(piece)
            if progress is not None:
                progress(piece if isinstance(piece, int) else len(piece))
        for field in plan.fields():
            target.patch(field.offset, derive(field, arguments(field, target)))

    def data(self, manifest: Manifest, progress: Progress | None = None) -> bytearray:
        """The whole file that ``manifest`` stands for, in memory."""
        target = Memory()
        self.write(manifest, target, progress)
        return target.content

    def _records(
        self, plan: Skeleton, lines: Mapping[str, Line], present: Set[str]
    ) -> dict[str, tuple[Line, Record]]:
        """The tensors to decode, by name; raises :class:`CodecError` where they declare too much work."""
        wanted = [segment.name for segment in plan.segments if isinstance(segment, Extent)]
        wanted = [name for name in wanted if name not in present]
        found = {name: (lines[name], record_of(self._objects, lines[name])) for name in dict.fromkeys(wanted)}
        Budget(plan.size).spend(sum(layers.declared(found[name][1].layers) for name in wanted))
        return found

    def _tasks(
        self, plan: Skeleton, records: Mapping[str, tuple[Line, Record]], present: Set[str], framed: bool
    ) -> Iterator[Callable[[], bytes | memoryview | int]]:
        used, budget = 0, Budget(plan.size)
        for segment in plan.segments:
            if isinstance(segment, Literal):
                data = plan.literal[used : used + segment.length]
                used += segment.length
                yield partial(int, segment.length) if framed else partial(bytes, data)
            elif isinstance(segment, Field):
                yield partial(bytes, segment.length)
            elif segment.name in present:
                yield partial(int, segment.length)
            else:
                line, record = records[segment.name]
                yield from StoredTensor(self._objects, line, budget=budget, record=record).pieces()
