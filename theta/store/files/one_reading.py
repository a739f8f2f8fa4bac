"""A file that is read once, with the proof that what was read is one state of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, islice, pairwise
from typing import Final

from theta.errors import ChangedWhileReadError
from theta.formats.layout import Resident, Source
from theta.parallel import ordered
from theta.store.files.file_source import FileSource
from theta.store.format.tensor_tree import Chunk

Passage = tuple[int, Sequence[int]]
"""A place, and the lengths of the chunks from there on."""
Digested = Callable[[Sequence[bytes | memoryview]], tuple[Chunk, ...]]
"""Returns the chunks with the raw bytes that it is given."""

_IN_FLIGHT: Final = 64 << 20
_IN_FLIGHT_RESIDENT: Final = 32 << 20


def _are_joined(places: Sequence[tuple[int, int]]) -> bool:
    return all(offset + length == after for (offset, length), (after, _) in pairwise(places))


class Reading:
    """Reads pieces of ``source``, each with the digest of the very bytes that are handed out.

    ``digested`` takes these digests: it may know some of them from before.

    Threads may share it.  A write to a file shows in its identity, unless it comes within one tick of the
    clock after the last one before the file was opened.  So what is read that early is read again at the
    end.  All is read again when the identity has changed: only the times may be new.
    """

    def __init__(self, source: Source, digested: Digested = Chunk.of_each) -> None:
        self._source, self._digested = source, digested
        self._file = source if isinstance(source, FileSource) else None
        self._resident = source if isinstance(source, Resident) else None
        self._early: list[tuple[int, Chunk]] = []
        self._later: list[tuple[int, Chunk]] = []

    @property
    def budget(self) -> int:
        """Raw bytes that are to be read and not yet written: fewer of a program that has its own copies."""
        return _IN_FLIGHT if self._resident is None else _IN_FLIGHT_RESIDENT

    def whole(self, offset: int, length: int) -> memoryview | None:
        """Return bytes of a source in memory as they stand there; None for any other."""
        return None if self._resident is None else self._resident.view(offset, length)

    def forget(self, offset: int, length: int) -> None:
        """Let go of the value of ``length`` bytes at ``offset``, which is stored, if it is in memory."""
        if self._resident is not None:
            self._resident.forget(offset, length)

    def read(
        self, offset: int, lengths: Sequence[int], room: memoryview | None = None
    ) -> tuple[tuple[Chunk, ...], bytes | memoryview]:
        """Return the digests of chunks of these lengths from ``offset`` on, and the bytes of all of them.

        They are put into ``room``, which has as many bytes, if it is given.
        """
        (found,) = self._read([(offset, lengths)], room)
        return found

    def read_each(self, parts: Sequence[Passage]) -> list[tuple[tuple[Chunk, ...], bytes | memoryview]]:
        """Return what :meth:`read` does of each: digests of two large chunks take the time of one."""
        return self._read(parts)

    def _read(
        self, parts: Sequence[Passage], room: memoryview | None = None
    ) -> list[tuple[tuple[Chunk, ...], bytes | memoryview]]:
        known = self._later if self._file is None or self._file.is_settled() else self._early
        starts = [list(accumulate(lengths, initial=0)) for _, lengths in parts]
        places = [(offset, ends[-1]) for (offset, _), ends in zip(parts, starts, strict=True)]
        raws = self._each(places) if room is None else [self._bytes(*place, room) for place in places]
        views = [
            memoryview(raw)[start:end]
            for raw, ends in zip(raws, starts, strict=True)
            for start, end in pairwise(ends)
        ]
        digested = iter(self._digested(views))
        chunks = [tuple(islice(digested, len(lengths))) for _, lengths in parts]
        if self._file is not None:
            for (offset, _), ends, own in zip(parts, starts, chunks, strict=True):
                known += [(offset + start, chunk) for start, chunk in zip(ends, own, strict=False)]
        return list(zip(chunks, raws, strict=True))

    def _each(self, places: Sequence[tuple[int, int]]) -> list[bytes | memoryview]:
        """Return the bytes at places (offset, length); what lies side by side in a file is read at once."""
        if self._file is None or not _are_joined(places):
            return [self._bytes(*place, None) for place in places]
        first, (last, length) = places[0][0], places[-1]
        whole = memoryview(self._source.read(first, last + length - first))
        return [whole[offset - first : offset - first + length] for offset, length in places]

    def _bytes(self, offset: int, length: int, room: memoryview | None) -> bytes | memoryview:
        """Return ``length`` bytes from ``offset`` on, in ``room`` if it is given."""
        held = self.whole(offset, length)
        if room is None:
            return self._source.read(offset, length) if held is None else held
        if self._file is not None:
            self._file.read_into(offset, room)
        else:
            room[:] = self._source.read(offset, length) if held is None else held
        return room

    def prove(self) -> None:
        """Raise :class:`ChangedWhileReadError` unless all that was read is there at one time."""
        doubtful = self._early
        if self._file is not None and self._file.was_written():
            doubtful = self._early + self._later
        for _ in ordered(self._check, doubtful):
            pass

    def _check(self, piece: tuple[int, Chunk]) -> None:
        offset, chunk = piece
        if not chunk.holds(self._source.read(offset, chunk.length)):
            raise ChangedWhileReadError(
                "the file changed while it was read; nothing was stored",
                hint="repeat when nothing writes to it",
            )
