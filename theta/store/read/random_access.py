"""A committed checkpoint as a source of bytes: any part of the file, without writing it anywhere."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Final

from theta.errors import FormatError
from theta.formats.derived import arguments, derive
from theta.formats.layout import Layout
from theta.store.format import skeleton as skeletons
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Extent, Field
from theta.store.odb.objects import Objects
from theta.store.read import layers
from theta.store.read.reassembly import Restorer, checked_chunk

_KEPT: Final = 4


class StoredSource:
    """Random access to the file that ``manifest`` stands for; decodes only the chunks that are read.

    A derived field is computed when it is read, which may read every tensor; with ``exact`` off it reads
    as zeros, for those who only want to know where things are.
    """

    def __init__(self, objects: Objects, manifest: Manifest, *, exact: bool = True) -> None:
        self._restorer = Restorer(objects)
        self.size = self._restorer.size(manifest)
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
        self._readers: dict[str, _Chunks] = {}

    @property
    def layout(self) -> Layout:
        """The extents that were stored; views are not among them."""
        return self._plan.layout(self._format, self._lines)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``; ``FormatError`` outside of the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(f"read of {length} bytes at {offset} in a checkpoint of {self.size} bytes")
        parts: list[bytes] = []
        number = self._at(offset)
        self._expect(number, offset + length)
        while length > 0:
            within = offset - self._starts[number]
            take = min(length, self._starts[number + 1] - offset)
            if take > 0:
                parts.append(self._segment(number, within, take))
                offset, length = offset + take, length - take
            number += 1
        return b"".join(parts)

    def _expect(self, number: int, end: int) -> None:
        """The tensors from segment ``number`` to byte ``end`` are going to be read."""
        if self._objects.repo.promised.is_partial:
            segments = self._plan.segments[number : self._at(end - 1) + 1]
            lines = [self._lines[segment.name] for segment in segments if isinstance(segment, Extent)]
            self._objects.expect({line.tree: line.nbytes for line in lines})

    def _segment(self, number: int, within: int, length: int) -> bytes:
        segment = self._plan.segments[number]
        if isinstance(segment, Extent):
            return self._chunks(self._lines[segment.name]).read(within, length)
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
        """The segment that holds the byte at ``offset``."""
        return bisect_right(self._starts, offset) - 1

    def _chunks(self, line: Line) -> _Chunks:
        found = self._readers.pop(line.name, None) or _Chunks(self._objects, self._restorer, line)
        self._readers[line.name] = found
        if len(self._readers) > _KEPT:
            del self._readers[next(iter(self._readers))]
        return found


class _Chunks:
    """One tensor, by its chunks; the chunk that was read last is kept."""

    def __init__(self, objects: Objects, restorer: Restorer, line: Line) -> None:
        self._name = line.name
        self._record = restorer.record(line)
        self._view = layers.top(objects, self._record)
        self._starts = [0, *accumulate(chunk.length for chunk in self._record.chunks)]
        self._number = -1
        self._raw = memoryview(b"")

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the tensor from ``offset``."""
        parts: list[memoryview] = []
        while length > 0:
            number = bisect_right(self._starts, offset) - 1
            if number != self._number:
                self._raw = checked_chunk(self._view, self._record, number, self._name)
                self._number = number
            within = offset - self._starts[number]
            parts.append(self._raw[within : within + length])
            offset, length = offset + len(parts[-1]), length - len(parts[-1])
        return b"".join(parts)
