"""A committed checkpoint as a source of bytes: any part of the file, without writing it anywhere."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from theta.errors import FormatError
from theta.formats.derived import arguments, derive
from theta.formats.layout import Layout
from theta.store.format import skeleton as skeletons
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Extent, Field
from theta.store.odb.objects import Objects
from theta.store.read.reassembly import Restorer
from theta.store.read.stored_tensor import StoredTensor

_KEPT: Final = 4
"""Tensors that stay open, each with the chunk that was read last."""


class StoredSource:
    """Random access to the file that ``manifest`` stands for; decodes only the chunks that are read.

    A derived field is computed when it is read, which may read every tensor; with ``exact`` off it reads
    as zeros, for those who only want to know where things are.
    """

    def __init__(self, objects: Objects, manifest: Manifest, *, exact: bool = True) -> None:
        self.size = Restorer(objects, manifest).size
        self._objects = objects
        self._exact = exact
        self._lines = manifest.by_name
        self._format = manifest.format
        self._plan = skeletons.read(objects, manifest.skeleton)
        lengths = [segment.length for segment in self._plan.segments]
        self._starts = [0, *accumulate(lengths)]
        literals = [0 if isinstance(s, Extent | Field) else s.length for s in self._plan.segments]
        self._literal_starts = [0, *accumulate(literals)]
        self._places = (place for place in self._plan.fields() if place.width)
        self._fields: dict[int, bytes] = {}
        self._readers: dict[str, StoredTensor] = {}

    @property
    def layout(self) -> Layout:
        """The extents that were stored; views are not among them."""
        return self._plan.layout(self._format, self._lines)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``; raises ``FormatError`` outside of the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(f"read of {length} bytes at {offset} in a checkpoint of {self.size} bytes")
        parts: list[bytes] = []
        number = self._at(offset)
        self.expect(offset, offset + length)
        while length > 0:
            within = offset - self._starts[number]
            take = min(length, self._starts[number + 1] - offset)
            if take > 0:
                parts.append(self._segment(number, within, take))
                offset, length = offset + take, length - take
            number += 1
        return b"".join(parts)

    def expect(self, start: int, end: int) -> None:
        """Announce that the tensors from byte ``start`` to before byte ``end`` will be read."""
        if self._objects.repo.promised.is_partial:
            self._objects.expect(self._trees(start, end))

    def obtain(self, spans: Iterable[tuple[int, int]]) -> None:
        """Fetch in one request what this clone lacks of the tensors in ``spans`` (start, end)."""
        trees: dict[str, int] = {}
        for start, end in spans:
            trees |= self._trees(start, end)
        self._objects.obtain(trees)

    def _trees(self, start: int, end: int) -> dict[str, int]:
        """Return tree -> bytes, of the tensors from byte ``start`` to before byte ``end``."""
        segments = self._plan.segments[self._at(start) : self._at(end - 1) + 1] if end > start else ()
        lines = [self._lines[segment.name] for segment in segments if isinstance(segment, Extent)]
        return {line.tree: line.nbytes for line in lines if line.nbytes}

    def _segment(self, number: int, within: int, length: int) -> bytes:
        segment = self._plan.segments[number]
        if isinstance(segment, Extent):
            return self._tensor(self._lines[segment.name]).read_bytes(within, length)
        if isinstance(segment, Field):
            return self._field(number, segment)[within : within + length]
        start = self._literal_starts[number] + within
        return self._plan.literal[start : start + length]

    def _field(self, number: int, segment: Field) -> bytes:
        if not self._exact:
            return bytes(segment.length)
        # In the order of their ranks, as restore does it: a long chain of fields is no deep recursion.
        while number not in self._fields:
            place = next(self._places)
            self._fields[self._at(place.offset)] = derive(place, arguments(place, self))
        return self._fields[number]

    def _at(self, offset: int) -> int:
        """Return the segment that holds the byte at ``offset``."""
        return bisect_right(self._starts, offset) - 1

    def _tensor(self, line: Line) -> StoredTensor:
        found = self._readers.pop(line.name, None)
        self._readers[line.name] = found or StoredTensor(self._objects, line, kept=0)
        if len(self._readers) > _KEPT:
            del self._readers[next(iter(self._readers))]
        return self._readers[line.name]
