"""The value of a stored tensor: any part of it, decoded chunk by chunk and checked by digests."""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Self

from theta._numpy import np
from theta.codecs.base import TensorWords, word_dtype
from theta.errors import CodecError, CorruptError, ThetaError
from theta.parallel import ordered
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import Objects
from theta.store.read import layers
from theta.store.read.chunk_cache import ChunkCache
from theta.store.read.coming_file import Place
from theta.store.read.layers import Budget, Held, LayerView
from theta.store.read.tensor_records import record_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]

KEPT: Final = 32 << 20
"""Bytes of decoded chunks that are kept of one tensor: eight of the longest."""
_FEW: Final = 3
"""Chunks that are decoded one after the other: threads would cost more."""


class StoredTensor:
    """The value that a line of a manifest stands for (a :class:`theta.codecs.base.Base`).

    Every byte is checked by its chunk's digest, except in :meth:`sample`.  Threads may share it.

    Args:
        objects: where it is stored.
        line: what it is.
        place: a file that may hold the same bytes, which are read there instead of decoded.
        kept: bytes of decoded chunks to keep for the reads that follow; the last one is always kept.
        budget: what decoding may cost; by default what is due to one tensor.
        record: its ``@tensor``, where that was read before.
        held: a layer whose value lies somewhere else; decoding begins there, and anew below it where what
            comes out is not right.

    Raises:
        CodecError: its layers declare too much work.
        CorruptError: its ``@tensor`` is damaged, or not that of ``line``.
        MissingObjectsError: its ``@tensor`` is not here.
    """

    def __init__(
        self,
        objects: Objects,
        line: Line,
        place: Place | None = None,
        *,
        kept: int = KEPT,
        budget: Budget | None = None,
        record: Record | None = None,
        held: Held | None = None,
    ) -> None:
        self.line = line
        self.dtype, self.shape = line.dtype, line.shape
        self.record = record or record_of(objects, line)
        self._place = place
        self._kept = ChunkCache(kept)
        self._from_nothing = partial(layers.top, objects, self.record, budget)
        self._view = self._from_nothing() if self.record.chunks and held is None else None
        self._short = layers.top(objects, self.record, budget, held) if held is not None else None

    @classmethod
    def beside(cls, objects: Objects, line: Line, shared: ChunkCache) -> Self:
        """Return a tensor that keeps decoded layers in ``shared``, where other versions of it find them."""
        found = cls(objects, line, kept=0)
        if found.record.chunks:
            found._view = layers.top(objects, found.record, shared=shared)
        return found

    @cached_property
    def starts(self) -> list[int]:
        """The first word of each chunk, and the number of all words."""
        size = word_dtype(self.dtype).itemsize
        return [*accumulate((chunk.length // size for chunk in self.record.chunks), initial=0)]

    @property
    def is_at_hand(self) -> bool:
        """Whether all of it can be read without being decoded: from a file, or from what is kept."""
        return self._place is not None or len(self._kept) == len(self.record.chunks)

    def forget(self) -> None:
        """Let go of decoded chunks."""
        self._kept.clear()

    def leave(self) -> None:
        """Let go of all that is kept of it, here and by the system: it will not be read again."""
        self.forget()
        if self._place is not None:
            self._place.source.drop(self._place.offset, self.line.nbytes)

    # -- reading ---------------------------------------------------------------------------------

    def pieces(self) -> Iterator[tuple[int, Callable[[], memoryview]]]:
        """Yield the offset of each chunk, in order, and a function that decodes its raw bytes anew."""
        size = word_dtype(self.dtype).itemsize
        numbers = range(len(self.record.chunks))
        return ((self.starts[number] * size, partial(self._raw, number)) for number in numbers)

    def chunks(self) -> Iterator[memoryview]:
        """Yield the raw bytes, chunk by chunk; some are decoded ahead, on threads."""
        return ordered(lambda piece: piece[1](), self.pieces())

    def whole(self) -> TensorWords:
        """Return the tensor in memory."""
        return TensorWords.from_bytes(b"".join(self.chunks()), self.dtype, self.shape)

    def read(self, start: int, stop: int) -> Words:
        """Return the words from ``start`` to before ``stop``."""
        return self._joined(start, stop, lambda numbers: map(self._chunk, numbers))

    def _joined(self, start: int, stop: int, chunks: Callable[[Sequence[int]], Iterable[Words]]) -> Words:
        """Return the words from ``start`` to before ``stop``; ``chunks`` decodes chunks by their numbers."""
        ends = bisect_right(self.starts, start) - 1, bisect_left(self.starts, stop)
        numbers = range(*ends) if start < stop else ()
        parts = [
            words[max(0, start - self.starts[number]) : stop - self.starts[number]]
            for number, words in zip(numbers, chunks(numbers), strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, word_dtype(self.dtype))

    def read_bytes(self, offset: int, length: int) -> bytes:
        """Return ``length`` raw bytes from ``offset``; many chunks are decoded side by side."""
        if not length:
            return b""
        size = word_dtype(self.dtype).itemsize
        first = offset // size
        raw = self._joined(first, -(-(offset + length) // size), self._side_by_side).data.cast("B")
        return bytes(raw[offset - first * size :][:length])

    def sample(self, start: int, stop: int) -> Words:
        """Return the words of that range of one chunk, unchecked: to choose by, not to keep."""
        number = bisect_right(self.starts, start) - 1
        words = self._kept.find(number)
        if words is None:
            words = self._whole_view().chunk(number)
        first = self.starts[number]
        return words[start - first : stop - first]

    def _chunk(self, number: int) -> Words:
        return self._kept.get(number, partial(self._words, number))

    def _words(self, number: int) -> Words:
        return np.frombuffer(self._raw(number), word_dtype(self.dtype))

    def _side_by_side(self, numbers: Sequence[int]) -> Iterator[Words]:
        """Yield those chunks, decoded on threads if that is faster; the last one is kept."""
        if len(numbers) <= _FEW:
            yield from map(self._chunk, numbers)
            return
        yield self._chunk(numbers[0])  # which the read before this one may have kept
        yield from ordered(self._words, numbers[1:-1])
        yield self._chunk(numbers[-1])

    def unproven(self, number: int) -> memoryview | None:
        """Return what the bytes of chunk ``number`` should be, for a caller that compares its digest.

        None, or other bytes, where only :meth:`pieces` gives the right ones.
        """
        return self._decoded(number) if self._place is None else self._in_place(number)

    def _raw(self, number: int) -> memoryview:
        """Return the raw bytes of chunk ``number``, checked by its digest."""
        chunk = self.record.chunks[number]
        if (found := self._in_place(number)) is not None and chunk.holds(found):
            return found
        raw = self._decoded(number)
        if self._short is not None and not chunk.holds(raw):
            raw = self._from_layers(number)
        if not chunk.holds(raw):
            raise CorruptError(f"{self.line.name}: chunk {number} is not what its digest says")
        return raw

    def _whole_view(self) -> LayerView:
        """Return the value with all its layers, which is made when it is first needed."""
        if self._view is None:
            self._view = self._from_nothing()
        return self._view

    def _in_place(self, number: int) -> memoryview | None:
        """Return the bytes that the file has where those of chunk ``number`` may be."""
        if self._place is None:
            return None
        chunk, start = self.record.chunks[number], self.starts[number] * word_dtype(self.dtype).itemsize
        with contextlib.suppress(ThetaError):  # the file was shortened, or replaced, since
            return memoryview(self._place.source.read(self._place.offset + start, chunk.length))
        return None

    def _decoded(self, number: int) -> memoryview:
        """Return what chunk ``number`` is on top of the held value; if there is none, of its lowest layer."""
        if self._short is not None:
            with contextlib.suppress(ThetaError):
                return self._short.chunk(number).data.cast("B")
        return self._from_layers(number)

    def _from_layers(self, number: int) -> memoryview:
        """Return the bytes of chunk ``number``, decoded from the lowest layer on."""
        try:
            return self._whole_view().chunk(number).data.cast("B")
        except CodecError as error:
            raise CodecError(f"{self.line.name}: {error}") from error
