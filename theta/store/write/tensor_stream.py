"""The tensors of a file on their way into a pack, on all cores: read and hashed, coded, framed, written.

A tensor is read once; its digest is taken of the bytes that are coded.  What comes out does not depend on the
number of threads, nor does the order of the objects in the pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice, pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

from theta._numpy import np
from theta.codecs import dense
from theta.codecs.base import Each, TensorWords
from theta.errors import ChangedWhileReadError
from theta.formats.layout import Source, Tensor
from theta.parallel import Pool
from theta.progress import Progress
from theta.store.files import file_scan
from theta.store.files.one_reading import Reading
from theta.store.format import tensor_tree
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import Chunk
from theta.store.odb.packs import PackEntry, PackWriter
from theta.store.write import layer_plan, scouts
from theta.store.write.bases import Nearby
from theta.store.write.guidance import ALONE, Guidance, Searched
from theta.store.write.layer_plan import Changed, Planned, Ready
from theta.store.write.scouts import Scouts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Room = NDArray[np.uint8]

Chunks = Sequence[Chunk]

_BATCH: Final = 5 << 20
_BATCH_COUNT: Final = 64
"""Raw bytes and number of tensors that one thread takes at a time: two are hashed in the time of one."""
_WORTH_EXPECTING: Final = 64 << 20
"""Raw bytes from which on it takes long to hash a pack after it is written."""
_WHOLE: Final = 24 << 20
"""Raw bytes of a tensor up to which one thread works on it; the chunks of a larger one are spread."""


@dataclass(frozen=True)
class Lookup:
    """The values that are stored already.

    Attributes:
        nearby: finds bases.
        line: the line of a tensor whose value is stored, or none.
        may_know: whether the value of such a tensor may be stored at all; tells without its digest.
        chunks: (dtype, digest) -> blob, of chunks that tensors of this name have.
    """

    nearby: Nearby
    line: Callable[[Tensor, Chunks], Line | None]
    may_know: Callable[[Tensor], bool]
    chunks: Callable[[str], Mapping[tuple[str, bytes], str]]

    def comparable(self, tensor: Tensor) -> bool:
        """Return whether ``tensor`` may gain by a base, and memory suffices to compare it with them."""
        if not layer_plan.TINY < tensor.length <= layer_plan.LARGEST or tensor.dtype == "bytes":
            return False
        return self.nearby.may_have(tensor.name, tensor.dtype, tensor.shape)


@dataclass(frozen=True)
class _Read:
    """A tensor in memory."""

    tensor: Tensor
    chunks: Chunks
    data: bytes | memoryview

    def changed(self) -> Changed:
        """Return the tensor as it is planned."""
        words = TensorWords.from_bytes(memoryview(self.data), self.tensor.dtype, self.tensor.shape)
        return Changed(self.tensor.name, words, self.chunks)


@dataclass(frozen=True)
class _Piece:
    """A chunk of a large tensor: read, and coded or put into the room of the tensor if it was wanted so."""

    chunk: Chunk
    room: Room | None = None
    body: PackEntry | str = ""


_Done: TypeAlias = Line | Ready | _Read | _Piece


@dataclass(frozen=True)
class _Job:
    weight: int
    run: Callable[[], Sequence[_Done]]


@dataclass
class Lines:
    """The lines of all tensors, in the order of the file, and the names of those that are new.

    ``searched`` is of the tensors that were searched in full.
    """

    lines: list[Line] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    searched: Searched = field(default_factory=Searched)
    elsewhere: int = 0
    """Bytes of the packs that other processes wrote."""


class TensorStream:
    """Stores the tensors of ``source``.

    ``expected`` are their digests, where they are known beforehand; ``reading`` is what these were read with;
    ``guidance`` is what other parts of the file told.
    """

    def __init__(
        self,
        source: Source,
        lookup: Lookup,
        pack: PackWriter,
        expected: Mapping[str, Chunks] | None = None,
        reading: Reading | None = None,
        guidance: Guidance = ALONE,
    ) -> None:
        self._source, self._lookup, self._pack = source, lookup, pack
        self._expected = expected or {}
        self._reading = reading or Reading(source)
        self._guidance = guidance
        self._comparing = guidance.comparing
        self._small_in_all = 0
        self._scouts = Scouts(())

    def store(self, tensors: Sequence[Tensor], progress: Progress | None) -> Lines:
        """Store what is new of ``tensors``; raises :class:`ChangedWhileReadError` if the file changed."""
        found: dict[str, Line] = {}
        known: set[str] = set()
        waiting: list[_Read] = []
        self._scouts = Scouts((one.name for one in self.first(tensors)), self._guidance.found_none)
        self._pack.expect(_objects_of(tensors))
        with Pool() as pool:
            jobs = pool.ordered(
                lambda job: job.run(), self._jobs(tensors), lambda job: job.weight, self._reading.budget
            )
            done = chain.from_iterable(jobs)
            for tensor in tensors:
                made = self._spread_out(tensor, done, pool.ordered) if is_spread(tensor) else next(done)
                self._note_size(tensor, made)
                if isinstance(made, _Read):
                    waiting.append(made)
                elif isinstance(made, Line):
                    self._pack.expect(0)
                    known.add(tensor.name)
                    found[tensor.name] = made
                else:
                    assert isinstance(made, Ready)
                    found[tensor.name] = made.write(self._pack)
                if tensor.name in found:
                    self._reading.forget(tensor.offset, tensor.length)
                if self._comparing:
                    found |= self._settled(waiting)
                if progress is not None:
                    progress(tensor.length)
        found |= self._settled(waiting)
        self.prove()
        names = [tensor.name for tensor in tensors]
        new = [name for name in names if name not in known]
        return Lines([found[name] for name in names], new, self._scouts.searched)

    def prove(self) -> None:
        """Raise :class:`ChangedWhileReadError` unless what was read so far is there at one time."""
        self._reading.prove()

    def _note_size(self, tensor: Tensor, made: _Done) -> None:
        """Compare small tensors with bases only if the others are large enough."""
        if not isinstance(made, Line) and not self._comparing:
            self._small_in_all += tensor.length
            self._comparing = layer_plan.worth_comparing([tensor.length], self._small_in_all)

    def _settled(self, waiting: list[_Read]) -> dict[str, Line]:
        """Write small tensors that had to wait for what the others are."""
        found = {read.tensor.name: self._ready(read).write(self._pack) for read in waiting}
        for read in waiting:
            self._reading.forget(read.tensor.offset, read.tensor.length)
        waiting.clear()
        return found

    def _jobs(self, tensors: Sequence[Tensor]) -> Iterator[_Job]:
        batch: list[Tensor] = []
        for tensor in tensors:
            held = sum(item.length for item in batch) + tensor.length
            if batch and (is_spread(tensor) or held > _BATCH or len(batch) == _BATCH_COUNT):
                yield self._batch(batch)
                batch = []
            if is_spread(tensor):
                yield from self._pieces(tensor)
            else:
                batch.append(tensor)
        if batch:
            yield self._batch(batch)

    # -- whole tensors -------------------------------------------------------------------

    def _batch(self, tensors: Sequence[Tensor]) -> _Job:
        return _Job(sum(tensor.length for tensor in tensors), lambda: self._wholes(tensors))

    def first(self, tensors: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the first of ``tensors`` that a thread compares with bases before others."""
        may_have = (one for one in tensors if self._is_compared_at_once(one) and not is_spread(one))
        return islice(may_have, scouts.COUNT)

    def _is_compared_at_once(self, tensor: Tensor) -> bool:
        return tensor.length > layer_plan.SMALL and self._lookup.comparable(tensor)

    def _wholes(self, tensors: Sequence[Tensor]) -> list[_Done]:
        made: list[_Done | Changed] = []
        try:
            parts = [(one.offset, tensor_tree.chunk_lengths(one.dtype, one.shape)) for one in tensors]
            for tensor, read in zip(tensors, self._reading.read_each(parts), strict=True):
                made.append(self._made(_Read(tensor, *read)))
                self._scouts.tell(tensor.name, None)
            alone = iter(self._alone([one for one in made if isinstance(one, Changed)]))
            return [next(alone) if isinstance(one, Changed) else one for one in made]
        except BaseException:
            self._scouts.give_up()
            raise

    def _made(self, read: _Read) -> _Done | Changed:
        """Return the tensor as it is stored, or coded on its bases; without any, or if it waits, as it is."""
        tensor, chunks = read.tensor, read.chunks
        self._check(tensor, chunks)
        if (line := self._lookup.line(tensor, chunks)) is not None:
            return line
        if tensor.length <= layer_plan.SMALL and not self._comparing:
            return read
        changed = read.changed()
        planned = self._on_bases(tensor, changed)
        return changed if planned is None else planned.ready(self._pack)

    def _on_bases(self, tensor: Tensor, changed: Changed, each: Each | None = None) -> Planned | None:
        """Return a tensor on its bases, whose chunks ``each`` encodes; None if it has none."""
        if not self._lookup.comparable(tensor):
            return None
        is_told = each is None and tensor.length > layer_plan.SMALL
        hidden = not (is_told and self._scouts.found_none(tensor.name))
        planned = self._lookup.nearby.plan(changed, each or map, hidden)
        self._scouts.tell(tensor.name, planned)
        return planned

    def _alone(self, tensors: Sequence[Changed]) -> list[Ready]:
        """Return tensors, coded without bases, together; what is stored of their chunks is kept.

        A tensor of one chunk has none that is, or it would be known itself.
        """
        chunks = self._lookup.chunks
        planned = layer_plan.plan_alone(tensors, lambda one: chunks(one.name) if len(one.chunks) > 1 else {})
        return layer_plan.ready_each(planned, self._pack)

    def _ready(self, read: _Read, each: Each = map) -> Ready:
        """Return the tensor, coded on its bases if it has some, else alone."""
        changed = read.changed()
        is_compared = self._comparing or read.tensor.length > layer_plan.SMALL
        planned = self._on_bases(read.tensor, changed, each) if is_compared else None
        return self._alone([changed])[0] if planned is None else planned.ready(self._pack)

    def _check(self, tensor: Tensor, chunks: Chunks, first: int = 0) -> None:
        expected = self._expected.get(tensor.name)
        if expected is not None and tuple(expected[first : first + len(chunks)]) != tuple(chunks):
            raise ChangedWhileReadError(f"{tensor.name} changed while it was read; nothing was stored")

    # -- large tensors -------------------------------------------------------------------

    def _pieces(self, tensor: Tensor) -> Iterator[_Job]:
        comparable = self._lookup.comparable(tensor)
        coded = tensor.dtype == "bytes" or not (comparable or self._lookup.may_know(tensor))
        reusable = self._lookup.chunks(tensor.name) if coded else {}
        held = self._reading.whole(tensor.offset, tensor.length) if comparable else None
        there = np.frombuffer(held, np.uint8) if held is not None else None
        room = np.empty(tensor.length, np.uint8) if comparable and there is None else there
        pieces, number = iter(file_scan.pieces(self._source, tensor)), 0
        while two := list(islice(pieces, 2)):  # they are hashed in the time of one

            def run(number: int = number, two: list[tuple[int, int]] = two) -> Sequence[_Done]:
                start, lengths = two[0][0], [length for _, length in two]
                at, size = start - tensor.offset, sum(lengths)
                own = room[at : at + size].data if room is not None and there is None else None
                chunks, raw = self._reading.read(start, lengths, own)
                self._check(tensor, chunks, number)
                if not coded:
                    return [_Piece(chunk, room) for chunk in chunks]
                ends = accumulate(lengths, initial=0)
                raws = [memoryview(raw)[begin:end] for begin, end in pairwise(ends)]
                bodies = self._coded_each(tensor.dtype, chunks, raws, reusable)
                return [_Piece(chunk, body=body) for chunk, body in zip(chunks, bodies, strict=True)]

            yield _Job(sum(length for _, length in two), run)
            number += len(two)

    def _spread_out(self, tensor: Tensor, done: Iterator[_Done], each: Each) -> _Done:
        """Join a tensor from its pieces, the next ones of ``done``."""
        chunks: list[Chunk] = []
        blobs: list[str] = []
        room, left = None, tensor.length
        while left > 0:
            piece = next(done)
            assert isinstance(piece, _Piece)
            room = piece.room
            chunks.append(piece.chunk)
            blobs.append(self._added(piece.body))
            left -= piece.chunk.length
        if (line := self._lookup.line(tensor, chunks)) is not None:
            return line
        if room is not None:
            return self._ready(_Read(tensor, chunks, room.data), each)
        if not all(blobs):
            blobs = self._coded_later(tensor, chunks, each)
        planned = layer_plan.of_blobs(tensor.name, tensor.dtype, tensor.shape, chunks, blobs)
        return planned.ready(self._pack)

    def _added(self, body: PackEntry | str) -> str:
        """Add a blob to the pack if it is new; return its id."""
        if isinstance(body, str):
            return body
        self._pack.add(body)
        return body.oid

    def _coded_later(self, tensor: Tensor, chunks: Chunks, each: Each) -> list[str]:
        """Read a tensor again that is too large to be held until its digest is known; return its blobs."""
        reusable = self._lookup.chunks(tensor.name)
        starts = accumulate((chunk.length for chunk in chunks), initial=tensor.offset)

        def work(part: tuple[int, Chunk]) -> PackEntry | str:
            (again,), raw = self._reading.read(part[0], [part[1].length])
            if again != part[1]:
                raise ChangedWhileReadError(f"{tensor.name} changed while it was read; nothing was stored")
            return self._coded_each(tensor.dtype, [again], [raw], reusable)[0]

        return [self._added(body) for body in each(work, zip(starts, chunks, strict=False))]

    def _coded_each(
        self,
        dtype: str,
        chunks: Chunks,
        raws: Sequence[bytes | memoryview],
        known: Mapping[tuple[str, bytes], str],
    ) -> list[PackEntry | str]:
        """Return chunks, each coded by itself, or the ids of the blobs that have them."""
        there = [known.get((dtype, chunk.digest)) for chunk in chunks]
        new = [dense.encode(raw, dtype) for raw, blob in zip(raws, there, strict=True) if blob is None]
        entries = iter(self._pack.blob_entries(new))
        return [next(entries) if blob is None else blob for blob in there]


def _objects_of(tensors: Sequence[Tensor]) -> int:
    """Return the number of objects that ``tensors`` take if all are new; 0 when it does not matter."""
    is_large = sum(tensor.length for tensor in tensors) >= _WORTH_EXPECTING
    if not is_large or any(tensor.dtype == "bytes" for tensor in tensors):
        return 0
    return sum(len(tensor_tree.chunk_lengths(tensor.dtype, tensor.shape)) + 2 for tensor in tensors)


def is_spread(tensor: Tensor) -> bool:
    """Return whether all threads work on ``tensor``, chunk by chunk."""
    return tensor.length > _WHOLE or tensor.dtype == "bytes"
