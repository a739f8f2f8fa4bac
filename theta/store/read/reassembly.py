"""From a manifest to bytes: the skeleton's table is run, every chunk checked by its digest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Final, Protocol

from theta import codecs
from theta.errors import CorruptError, ThetaError
from theta.formats.derived import arguments, derive
from theta.formats.layout import Source
from theta.parallel import ordered
from theta.progress import Progress
from theta.store.format import skeleton as skeletons
from theta.store.format import tensor_tree
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Skeleton
from theta.store.format.tensor_tree import Chunk, Record
from theta.store.odb.objects import Objects
from theta.store.read import layers
from theta.store.read.coming_file import Memory, Place
from theta.store.read.layers import Budget, Held, HeldValue
from theta.store.read.stored_tensor import StoredTensor
from theta.store.read.tensor_records import common_layer, record_here, record_of

NOWHERE: Final[Mapping[str, Place]] = {}
_BATCH: Final = 1 << 20
"""Bytes that a thread is given at once, at least."""
_ALONE: Final = 8 << 20
"""Bytes up to which one thread decodes all: several would wait for the interpreter, a sixth of the work."""
MAX_TOTAL: Final = 1 << 44
"""Bytes that one checkpoint may declare (16 TiB): constant chunks amplify, so there is a cap."""


def prepare() -> None:
    """Import now what decoding will need."""
    codecs.prepare()


class Copy(Source, Protocol):
    """A copy of a checkpoint that is written to; threads may do so at once."""

    def patch(self, offset: int, data: bytes | memoryview) -> None:
        """Write ``data`` at ``offset``."""
        ...


class Output(Copy, Protocol):
    """A file with the literal bytes of its skeleton."""

    def holds(self, line: Line) -> bool:
        """Return whether the tensor of ``line`` is written already."""
        ...


class Restorer:
    """Makes the file that ``manifest`` stands for out of what a repository holds."""

    def __init__(self, objects: Objects, manifest: Manifest) -> None:
        self._objects, self._manifest = objects, manifest

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.plan.size

    @cached_property
    def plan(self) -> Skeleton:
        """The table of the file; raises :class:`CorruptError` when it does not fit the manifest."""
        manifest, plan = self._manifest, skeletons.read(self._objects, self._manifest.skeleton)
        left = {line.name for line in manifest.lines if line.nbytes}
        for name, _, length in plan.extents():
            line = manifest.by_name.get(name)
            if line is None or line.nbytes != length:
                raise CorruptError(f"the skeleton and the manifest disagree about {name[:80]!r}")
            left.discard(name)
        if left:
            raise CorruptError(f"the skeleton has no place for {min(left)[:80]!r}")
        if plan.size > MAX_TOTAL:
            raise CorruptError(f"the checkpoint declares {plan.size} bytes, over the limit of {MAX_TOTAL}")
        return plan

    def write(
        self, target: Output, progress: Progress | None = None, places: Mapping[str, Place] = NOWHERE
    ) -> None:
        """Write the tensors that ``target`` does not hold, and the fields that follow from all others.

        Tensors in ``places`` are read there, and decoded if the bytes there have another digest.  Where
        another value of a tensor is there, on which the wanted one is stored, decoding begins with that.
        Raises :class:`CodecError` before the first byte if the tensors declare too much work.
        """
        write_pieces(target, self._pieces(target, places), progress)
        for field in self.plan.fields():
            target.patch(field.offset, derive(field, arguments(field, target)))

    def data(self, progress: Progress | None = None) -> bytearray:
        """Return the whole file, in memory."""
        target = Memory(self.plan)
        self.write(target, progress)
        return target.content

    def _pieces(self, target: Output, places: Mapping[str, Place]) -> Iterator[Piece]:
        """Yield the chunks of the tensors that are not there yet."""
        lines = self._manifest.by_name
        wanted = [(lines[name], offset) for name, offset, _ in self.plan.extents()]
        placed = {line.name for line, _ in wanted}
        wanted += [(line, 0) for line in self._manifest.lines if line.name not in placed]  # of no bytes
        wanted = [(line, offset) for line, offset in wanted if not target.holds(line)]
        known = {line.name: place for line, _ in wanted if (place := _known(line, places)) is not None}
        records = {line.name: record_of(self._objects, line) for line, _ in wanted if line.name not in known}
        budget = Budget(self.plan.size)
        Budget(self.plan.size).spend(
            sum(layers.declared(records[line.name].layers) for line, _ in wanted if line.name in records)
        )
        for line, offset in wanted:
            if (place := known.get(line.name)) is not None:
                yield Piece(line.name, offset, line.nbytes, partial(self._copied, line, place, budget))
                continue
            record = records[line.name]
            stored = self._stored(line, record, places.get(line.name), budget)
            yield from pieces_of(stored, offset)

    def _copied(self, line: Line, place: Place, budget: Budget) -> memoryview:
        """Return the bytes of ``line`` as they are at ``place``; decoded, if others are there."""
        with contextlib.suppress(ThetaError):  # the file was shortened, or replaced, since
            raw = place.source.read(place.offset, line.nbytes)
            chunks = tensor_tree.cut(raw, line.dtype, line.shape)
            if tensor_tree.value_digest(line.dtype, line.shape, chunks) == line.digest:
                return memoryview(raw)
        return memoryview(StoredTensor(self._objects, line, budget=budget).read_bytes(0, line.nbytes))

    def _stored(self, line: Line, record: Record, place: Place | None, budget: Budget) -> StoredTensor:
        """Return the tensor of ``line``, to be read at ``place`` or decoded on the value that is there."""
        if place is None or place.line.same_value(line):
            return StoredTensor(self._objects, line, place, budget=budget, record=record)
        held = self._held(record, place)
        return StoredTensor(self._objects, line, budget=budget, record=record, held=held)

    def _held(self, record: Record, place: Place) -> Held | None:
        """Return the layer of ``record`` whose value is at ``place``; None when there is none."""
        old = record_here(self._objects, place.line) if len(record.layers) > 1 else None
        number = common_layer(record, old) if old is not None else None
        if old is None or number is None:
            return None
        return number, HeldValue(place.source, place.offset, old.dtype, old.shape)


def _known(line: Line, places: Mapping[str, Place]) -> Place | None:
    """Return the place of the value of ``line``, if that is proven without its record as fast as with it.

    The record tells the digests of chunks, and reading it takes longer than hashing a small tensor.  Chunks
    of plain bytes are cut by their content.
    """
    place = places.get(line.name) if 0 < line.nbytes <= _BATCH and line.dtype != "bytes" else None
    return place if place is not None and place.line.same_value(line) else None


Unproven = Callable[[], memoryview | None]
"""Returns what the bytes of a chunk should be, or None."""


@dataclass(frozen=True)
class Piece:
    """``nbytes`` bytes of the tensor ``name`` that are to be written at ``offset``.

    Attributes:
        read: returns the bytes.
        chunk: what they are proven by, if they are a chunk.
        unproven: returns what the bytes of the chunk should be, or None.
        ready: reads what is stored of the chunk, and returns ``unproven``.
    """

    name: str
    offset: int
    nbytes: int
    read: Callable[[], memoryview]
    chunk: Chunk | None = None
    unproven: Unproven = lambda: None
    ready: Callable[[], Unproven] | None = None

    def prepared(self) -> Piece:
        """Return the piece with what is stored of it read, if that can be done before it is decoded."""
        return self if self.ready is None else replace(self, unproven=self.ready(), ready=None)


def pieces_of(stored: StoredTensor, offset: int) -> Iterator[Piece]:
    """Yield the chunks of a tensor whose bytes belong to ``offset``."""
    for number, (start, read) in enumerate(stored.pieces()):
        chunk = stored.record.chunks[number]
        unproven = partial(stored.unproven, number)
        yield Piece(stored.line.name, offset + start, chunk.length, read, chunk, unproven)


def write_pieces(target: Copy, pieces: Iterable[Piece], progress: Progress | None = None) -> None:
    """Decode ``pieces``, on all cores if they are large, and write them to ``target``."""

    def work(batch: list[Piece]) -> int:
        for piece, raw in zip(batch, _proven(batch), strict=True):
            target.patch(piece.offset, piece.read() if raw is None else raw)
        return sum(piece.nbytes for piece in batch)

    # Threads write to the target until the generator is closed, and it may be discarded after that.
    with contextlib.closing(_each(work, pieces)) as done:
        for nbytes in done:
            if progress is not None:
                progress(nbytes)


def _each(work: Callable[[list[Piece]], int], pieces: Iterable[Piece]) -> Generator[int, None, None]:
    """Yield what ``work`` returns of each batch of pieces, from threads if there is much to decode."""
    pieces, few, nbytes = iter(pieces), list[Piece](), 0
    for piece in pieces:
        few.append(piece)
        nbytes += piece.nbytes
        if nbytes > _ALONE:
            yield from ordered(work, _batches(chain(few, pieces)))
            return
    # Large words take the interpreter's data out of the caches: they come last, and what is stored first.
    few.sort(key=lambda piece: piece.nbytes)
    yield from map(work, _batches([piece.prepared() for piece in few]))


def _proven(batch: list[Piece]) -> list[memoryview | None]:
    """Return the bytes of each piece that come out right at once: all digests are computed together."""
    found = [piece.prepared().unproven() for piece in batch]
    chunks = Chunk.of_each([raw for raw in found if raw is not None])
    made = iter(chunks)
    return [
        raw if raw is not None and next(made) == piece.chunk else None
        for piece, raw in zip(batch, found, strict=True)
    ]


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yield the pieces in groups: a small tensor is decoded faster than it is handed to a thread.

    A large one waits for another, since their digests are computed together.
    """
    batch, nbytes = list[Piece](), 0
    for piece in pieces:
        batch.append(piece)
        nbytes += piece.nbytes
        if nbytes >= _BATCH and (nbytes > piece.nbytes or piece.chunk is None):
            yield batch
            batch, nbytes = [], 0
    if batch:
        yield batch
