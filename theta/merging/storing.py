"""Storing a merged tensor, relative to the nearest of its parents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.codecs import dense
from theta.codecs.base import Each, Range, TensorWords, word_dtype
from theta.merging.reading import SHARED
from theta.merging.strategies.numbers import widen
from theta.parallel import ordered
from theta.store.format import tensor_tree
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import Chunk
from theta.store.odb.objects import Objects
from theta.store.read.stored_tensor import StoredTensor
from theta.store.read.tensor_records import has_structure
from theta.store.write import layer_plan
from theta.store.write.layer_plan import Changed, Hints, Planned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_SAMPLES: Final = 4
_SAMPLE: Final = 1 << 14
_NEARLY: Final = 1.2

Pieces = Iterator["Array"]
"""Consecutive pieces of the words of a tensor."""


@dataclass(frozen=True)
class Outlet:
    """A receiver of the bytes of a computed tensor; tied tensors have one each.

    Attributes:
        put: takes a name, an offset in the tensor and the bytes from there on.
        name: the name of the tensor.
    """

    put: Callable[[str, int, bytes | memoryview], None]
    name: str

    def __call__(self, offset: int, data: bytes | memoryview) -> None:
        """Take ``data``, which begins at ``offset`` of the tensor."""
        self.put(self.name, offset, data)


@dataclass(frozen=True)
class Streamed:
    """A tensor too large for memory, whose dense chunks are written as they are computed."""

    line: Line
    pieces: Callable[[], Pieces]
    outlets: Sequence[Outlet] = ()

    def write(self, pack: Any) -> Line:
        """Add blobs and tree to ``pack``; return the manifest's line."""
        line = self.line
        lengths = tensor_tree.chunk_lengths(line.dtype, line.shape)

        def work(raw: bytes) -> layer_plan.CodedChunk:
            return Chunk.of(raw), pack.blob_entry(dense.encode(raw, line.dtype))

        coded = ordered(work, _tapped(_recut(self.pieces(), lengths), self.outlets))
        return layer_plan.write_dense(pack, line.name, line.dtype, line.shape, coded)

    @property
    def stored(self) -> int:
        """The number of bytes of the blobs, computed without writing them."""
        lengths = tensor_tree.chunk_lengths(self.line.dtype, self.line.shape)
        sizes = ordered(lambda raw: len(dense.encode(raw, self.line.dtype)), _recut(self.pieces(), lengths))
        return sum(sizes)


def _recut(pieces: Pieces, lengths: Sequence[int]) -> Iterator[bytes]:
    """Yield the bytes of ``pieces`` cut to ``lengths``."""
    waiting = bytearray()
    for length in lengths:
        while len(waiting) < length:
            waiting += next(pieces).tobytes()
        yield bytes(waiting[:length])
        del waiting[:length]


def _tapped(parts: Iterator[bytes], outlets: Sequence[Outlet]) -> Iterator[bytes]:
    """Yield ``parts`` unchanged after passing each to ``outlets``."""
    offset = 0
    for part in parts:
        for outlet in outlets:
            outlet(offset, part)
        yield part
        offset += len(part)


def plan(
    objects: Objects,
    like: Line,
    pieces: Callable[[], Pieces],
    parents: Sequence[StoredTensor],
    outlets: Sequence[Outlet] = (),
    *,
    compare: bool = True,
    by_numbers: bool = False,
) -> Planned | Streamed:
    """Plan how to store a tensor.

    Args:
        objects: the objects of the repository.
        like: the name, dtype and shape of the tensor.
        pieces: returns its words.
        parents: the versions that it may be stored relative to, the fastest to read last; among those
            of the same dtype and shape the nearest is used.
        outlets: receive the bytes.
        compare: look for the nearest parent; otherwise the tensor is stored in full, without kernels.
        by_numbers: each element was computed from those of the parents at the same index, so that the
            result has no structure if no parent has one.
    """
    if like.nbytes > layer_plan.LARGEST:
        return Streamed(like, pieces, outlets)
    words = _empty(like)
    raw = words.data.cast("B")
    each: Each = map if like.nbytes <= SHARED else ordered  # a large one is computed alone

    def given_away(part: Range) -> Chunk:
        for outlet in outlets:
            outlet(part[0], raw[slice(*part)])
        return Chunk.of(raw[slice(*part)])

    chunks = list(
        each(given_away, _filled(words, pieces(), tensor_tree.chunk_lengths(like.dtype, like.shape)))
    )
    new = TensorWords.from_bytes(raw, like.dtype, like.shape)
    bases = _nearest(words, like, parents) if compare else []
    values = {stored.line.digest: stored for stored in parents if stored.is_at_hand}
    if like.nbytes > SHARED:
        for stored in parents:
            if stored.line not in bases[:1]:
                stored.forget()  # encoding needs the memory
    structure = not by_numbers or any(has_structure(stored.record) for stored in parents)
    hints = Hints(each=each, values=values, structure=structure)
    planned = layer_plan.plan(objects, Changed(like.name, new, chunks), bases, hints)
    for stored in parents:
        stored.leave()
    return planned


def stored_bytes(planned: Planned | Streamed) -> int:
    """Return the number of bytes of new blobs, without trees and pack overhead."""
    if isinstance(planned, Streamed):
        return planned.stored
    return sum(len(body) for body in planned.files.values() if not isinstance(body, str))


def _empty(like: Line) -> Array:
    kind = word_dtype(like.dtype)
    return np.empty(like.nbytes // kind.itemsize, kind)


def _filled(words: Array, pieces: Pieces, lengths: Sequence[int]) -> Iterator[Range]:
    """Copy ``pieces`` to ``words``; yield (start, stop) in bytes of each chunk once it is complete."""
    there = 0
    for start, end in pairwise([0, *accumulate(lengths)]):
        while there * words.itemsize < end:
            piece = next(pieces)
            words[there : there + piece.size] = piece
            there += piece.size
        yield start, end
    assert there == words.size


def _nearest(words: Array, like: Line, parents: Sequence[StoredTensor]) -> list[Line]:
    """Return the parent nearest to ``words`` by a sample, followed by those of another dtype or shape.

    The last parent is preferred if it is nearly as near: the base has fewer layers.
    """
    alike = [stored for stored in parents if (stored.dtype, stored.shape) == (like.dtype, like.shape)]
    others = [stored.line for stored in parents if stored not in alike]
    if len(alike) < 2:
        return [*(stored.line for stored in alike), *others]
    gaps = [_distance(stored, words, like.dtype) for stored in alike]
    gaps[-1] /= _NEARLY
    return [alike[gaps.index(min(gaps))].line, *others]


def _distance(stored: StoredTensor, words: Array, dtype: str) -> float:
    """Return the sum of absolute differences of a sample; NaN differences are ignored."""
    total = 0.0
    starts = np.linspace(0, max(words.size - _SAMPLE, 0), _SAMPLES).astype(np.int64).tolist()
    for start in dict.fromkeys(starts):
        part = stored.sample(start, min(start + _SAMPLE, words.size))
        with np.errstate(all="ignore"):
            gap = np.abs(widen(words[start : start + part.size], dtype) - widen(part, dtype))
        total += float(np.nansum(gap, dtype=np.float64))
    return total
