"""Bringing a copy of a checkpoint to another version: what it has already is not decoded.

A copy is a file, or bytes in memory.  A list of :class:`Had` tells which tensors it has, by their digests.
Tensors and chunks with the digests of the new version are taken as they are.  Others are decoded, and proven
before they are written; where the new value is stored on top of the one that the copy has, decoding begins
there.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate, chain, pairwise

from theta.formats.derived import arguments, derive
from theta.formats.layout import Source
from theta.parallel import ordered
from theta.progress import Progress
from theta.store.format import tensor_tree
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Skeleton
from theta.store.format.tensor_tree import Chunk, Record
from theta.store.odb.objects import Objects
from theta.store.read import held_steps, layers, tensor_records
from theta.store.read.layers import Budget, HeldValue
from theta.store.read.reassembly import Copy, Piece, Restorer, pieces_of, write_pieces
from theta.store.read.stored_tensor import StoredTensor


@dataclass(frozen=True)
class Had:
    """A tensor as a copy has it.

    Attributes:
        name: its name in the copy.
        offset: where its bytes begin.
        digest: the digest of its value; "" when only its chunks are known.
        line: the stored tensor with this value, when one is known.
        chunks: its chunks, when they were hashed.
    """

    name: str
    offset: int
    digest: str
    line: Line | None = None
    chunks: tuple[Chunk, ...] = ()


def had_of(plan: Skeleton, manifest: Manifest) -> list[Had]:
    """Return what the file of ``manifest``, whose skeleton is ``plan``, has."""
    lines = manifest.by_name
    return [
        Had(name, offset, lines[name].digest, lines[name])
        for name, offset, length in plan.extents()
        if length
    ]


@dataclass(frozen=True)
class Span:
    """Bytes that are at ``start`` of the old file, and belong to ``offset`` of the new one."""

    start: int
    offset: int
    length: int


@dataclass(frozen=True)
class StoredPlace:
    """A stored tensor, and where it belongs in the file."""

    line: Line
    record: Record
    offset: int


@dataclass
class Revision:
    """The steps from a copy to the file of a new version.

    Attributes:
        spans: what is taken as it is; in place, nothing has to be done for it.
        pieces: what is decoded.
    """

    spans: list[Span] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    def span(self, start: int, offset: int, length: int) -> None:
        """Note that ``length`` bytes are there already."""
        last = self.spans[-1] if self.spans else None
        if last is not None and (last.start + last.length, last.offset + last.length) == (start, offset):
            self.spans[-1] = Span(last.start, last.offset, last.length + length)
        else:
            self.spans.append(Span(start, offset, length))

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors of which something is decoded, in file order."""
        return tuple(dict.fromkeys(piece.name for piece in self.pieces))

    @property
    def nbytes(self) -> int:
        """The bytes that are decoded."""
        return sum(piece.nbytes for piece in self.pieces)


class Reviser:
    """Plans how a copy becomes the file of ``manifest``.

    Args:
        objects: where that is stored.
        manifest: the new version.
        had: the tensors of the copy.
        source: the copy; None when it is not read.
        in_place: the copy itself is written to, so that bytes count only where they belong.
        plan: the checked skeleton of ``manifest``, where that was read before.
    """

    def __init__(
        self,
        objects: Objects,
        manifest: Manifest,
        had: Iterable[Had],
        source: Source | None,
        *,
        in_place: bool = False,
        plan: Skeleton | None = None,
    ) -> None:
        self._objects, self.manifest, self._source = objects, manifest, source
        self._in_place = in_place
        self.plan = plan or Restorer(objects, manifest).plan
        self._had = tuple(had)

    @cached_property
    def _by_place(self) -> Mapping[int, Had]:
        return {one.offset: one for one in self._had}

    @cached_property
    def _by_digest(self) -> Mapping[str, Had]:
        return {one.digest: one for one in self._had if one.digest}

    @cached_property
    def _by_name(self) -> Mapping[str, Had]:
        return {one.name: one for one in self._had}

    def _before(self, line: Line, offset: int) -> Had | None:
        """Return the tensor of the copy that is to become ``line`` at ``offset``."""
        if self._in_place:
            return self._by_place.get(offset)
        return self._by_digest.get(line.digest) or self._by_name.get(line.name)

    def _extents(self) -> Iterator[tuple[Line, int, Had | None]]:
        lines = self.manifest.by_name
        for name, offset, length in self.plan.extents():
            if length:
                yield lines[name], offset, self._before(lines[name], offset)

    def trees(self) -> dict[str, int]:
        """Return tree -> bytes of the tensors that the copy does not have."""
        return {line.tree: line.nbytes for line, _, had in self._extents() if not _is_there(line, had)}

    def revision(self) -> Revision:
        """Return what is to be done; reads the records of tensors that differ.

        Raises :class:`theta.errors.CodecError` if the tensors declare too much work.
        """
        found, budget, declared = Revision(), Budget(self.plan.size), Budget(self.plan.size)
        extents = [*self._extents()]
        differing = [line for line, _, had in extents if not _is_there(line, had)]
        # All records first: what belongs together is in one pack, and what it replaces in another.
        records = {line.name: tensor_records.record_of(self._objects, line) for line in differing}
        for line, offset, had in extents:
            if had is not None and _is_there(line, had):
                found.span(had.offset, offset, line.nbytes)
            else:
                record = records[line.name]
                declared.spend(layers.declared(record.layers))
                self._add(found, StoredPlace(line, record, offset), had, budget)
        return found

    def _add(self, found: Revision, new: StoredPlace, had: Had | None, budget: Budget) -> None:
        line, record, offset = new.line, new.record, new.offset
        old = self._record(had) if len(record.chunks) > 1 else None  # of one chunk the digest told
        number = self._number(record, old, had.line) if had is not None and had.line is not None else None
        held = self._value(had) if had is not None and number is not None else None
        payload = held_steps.payload_of(record, number) if held is not None and number is not None else None
        if held is not None and payload is not None:
            ready = partial(held_steps.ready, self._objects, record, payload, held)
            read = partial(self._read, new, number, held, budget)
            found.pieces.append(Piece(line.name, offset, line.nbytes, read, record.chunks[0], ready=ready))
            return
        cuts = _cuts(had.chunks or (old.chunks if old else ())) if had else {}
        stored = self._stored(new, number, held, budget)
        for chunk, piece in zip(record.chunks, pieces_of(stored, offset), strict=True):
            start = piece.offset - offset
            if had is not None and cuts.get((start, chunk.length)) == chunk.digest:
                found.span(had.offset + start, piece.offset, chunk.length)
            else:
                found.pieces.append(piece)

    def _stored(
        self, new: StoredPlace, number: int | None, held: HeldValue | None, budget: Budget
    ) -> StoredTensor:
        """Return the tensor ``new``, to be decoded on its layer ``number``, ``held``, if that is known."""
        below = (number, held) if number is not None and held is not None else None
        return StoredTensor(self._objects, new.line, budget=budget, record=new.record, held=below)

    def _read(self, new: StoredPlace, number: int | None, held: HeldValue, budget: Budget) -> memoryview:
        """Return the proven bytes of a tensor of one chunk."""
        _, read = next(self._stored(new, number, held, budget).pieces())
        return read()

    def _record(self, had: Had | None) -> Record | None:
        """Return the record of a tensor of the copy, if it is in this repository."""
        if had is None or had.line is None:
            return None
        return tensor_records.record_here(self._objects, had.line)

    def _value(self, had: Had) -> HeldValue:
        """Return the value of a stored tensor that the copy has."""
        assert self._source is not None
        assert had.line is not None
        return HeldValue(self._source, had.offset, had.line.dtype, had.line.shape)

    def _number(self, record: Record, old: Record | None, line: Line) -> int | None:
        """Return the layer of ``record`` that is the value of ``line``, if decoding can begin there."""
        number = self._common(record, old, line) if self._source and len(record.layers) > 1 else None
        if number is None or (self._in_place and not tensor_records.of_words(record, number)):
            return None
        return number

    def _common(self, record: Record, old: Record | None, line: Line) -> int | None:
        """Return the number of that layer; ``old`` is the record of ``line``, if it was read.

        The names in a tree mostly tell, and they are read much faster than a record.
        """
        if old is None:
            files = self._objects.ids_here(line.tree) or {}
            number = tensor_records.layer_with(record, files, line)
            if number is not None:
                return number
            old = tensor_records.record_here(self._objects, line)
        return None if old is None else tensor_records.common_layer(record, old)


def _is_there(line: Line, had: Had | None) -> bool:
    """Return whether a copy has the value of ``line``, of whose place it has ``had``."""
    return had is not None and had.digest == line.digest


def _cuts(chunks: Iterable[Chunk]) -> dict[tuple[int, int], bytes]:
    """Return (first byte, length) -> digest of each chunk."""
    chunks = tuple(chunks)
    starts = accumulate((chunk.length for chunk in chunks), initial=0)
    return {(start, chunk.length): chunk.digest for start, chunk in zip(starts, chunks, strict=False)}


def hashed(manifest: Manifest, plan: Skeleton, source: Source) -> list[Had]:
    """Return what ``source`` has at the places of ``manifest``: each chunk is hashed where it should be.

    Plain bytes, which are cut by their content, are left out.
    """
    found: list[Had] = []
    for name, offset, length in plan.extents():
        line = manifest.by_name[name]
        if length and line.dtype != "bytes":
            ends = [*accumulate(tensor_tree.chunk_lengths(line.dtype, line.shape), initial=0)]
            pieces = [(offset + start, end - start) for start, end in pairwise(ends)]
            pairs = [pieces[start : start + 2] for start in range(0, len(pieces), 2)]
            hashes = ordered(lambda pair: Chunk.of_each([source.read(*piece) for piece in pair]), pairs)
            chunks = tuple(chain.from_iterable(hashes))
            digest = tensor_tree.value_digest(line.dtype, line.shape, chunks)
            found.append(Had(name, offset, digest, None, chunks))
    return found


def write(target: Copy, revision: Revision, progress: Progress | None = None) -> None:
    """Decode what is due and write it to its place."""
    write_pieces(target, revision.pieces, progress)


def write_fields(target: Copy, plan: Skeleton, written: Iterable[tuple[int, int]] | None = None) -> None:
    """Compute the derived fields; with ``written`` (offset, length) those that follow from these bytes."""
    changed = None if written is None else _Places(written)
    for place in plan.fields():
        if changed is None or any(changed.overlap(*part) for part in place.arguments):
            target.patch(place.offset, derive(place, arguments(place, target)))
            if changed is not None:
                changed.add(place.offset, place.width)


class _Places:
    """Parts of a file that do not overlap."""

    def __init__(self, parts: Iterable[tuple[int, int]]) -> None:
        self._ends = sorted((offset, offset + length) for offset, length in parts)

    def add(self, offset: int, length: int) -> None:
        """Add a part."""
        insort(self._ends, (offset, offset + length))

    def overlap(self, offset: int, length: int) -> bool:
        """Return whether some byte of these is in a part."""
        number = bisect_left(self._ends, (offset + length, 0)) - 1
        return number >= 0 and self._ends[number][1] > offset
