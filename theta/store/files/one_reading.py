"""A file that is read once, with the proof that what was read is one state of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

from theta.errors import ChangedWhileReadError
from theta.formats.layout import Resident, Source
from theta.parallel import ordered
from theta.store.files.file_source import FileSource
from theta.store.format.tensor_tree import Chunk

_IN_FLIGHT: Final = 64 << 20
_IN_FLIGHT_RESIDENT: Final = 32 << 20


class Reading:
    """Reads pieces of ``source``, each with the digest of the very bytes that are handed out.

    Threads may share it.  A write to a file shows in its identity, unless it comes within one tick of the
    clock after the last one before the file was opened.  So what is read that early is read again at the
    end.  All is read again when the identity has changed: only the times may be new.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
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

    def read(self, offset: int, lengths: Sequence[int]) -> tuple[tuple[Chunk, ...], bytes | memoryview]:
        """Return the digests of chunks of these lengths from ``offset`` on, and the bytes of all of them."""
        known = self._later if self._file is None or self._file.is_settled() else self._early
        ends = [0, *accumulate(lengths)]
        held = self.whole(offset, ends[-1])
        raw = self._source.read(offset, ends[-1]) if held is None else held
        whole = memoryview(raw)
        chunks = Chunk.of_each([whole[start:end] for start, end in pairwise(ends)])
        if self._file is not None:
            known += [(offset + start, chunk) for start, chunk in zip(ends, chunks, strict=False)]
        return chunks, raw

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
