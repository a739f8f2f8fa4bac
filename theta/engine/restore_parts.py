"""Some tensors of a file, decoded by a worker and written to their places in the coming file.

The file is there at its whole length before the first part begins, under a temporary name that all
workers see.  Each writes what it has decoded and proven by its digest, where that belongs, so a part may
be done twice.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from theta import _fs, parallel
from theta.engine import file_parts, rounds
from theta.engine.workplace import Workers, Workplace
from theta.errors import EngineError
from theta.git.repository import Repository
from theta.progress import Progress
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.objects import Objects
from theta.store.read.coming_file import ComingFile, Place
from theta.store.read.layers import Budget, declared
from theta.store.read.reassembly import Restorer
from theta.store.read.stored_tensor import StoredTensor
from theta.store.read.tensor_records import record_of

LARGEST: Final = 1 << 30
"""The bytes of a tensor above which ranges of its chunks are decoded by several workers."""


@dataclass(frozen=True)
class TensorSpan:
    """The chunks of a tensor that begin from byte ``start`` to before byte ``stop`` of it."""

    name: str
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Raw bytes, if chunks begin at both ends."""
        return self.stop - self.start


@dataclass(frozen=True)
class ComingPlace:
    """The coming file, as every worker sees it.

    Attributes:
        path: the temporary.
        size: its bytes.
        host: the machine whose own sync of the file is enough.
    """

    path: str
    size: int
    host: str

    @classmethod
    def of(cls, coming: ComingFile) -> ComingPlace | None:
        """Return the place of a file that has a name; None for another one, which no worker sees."""
        if (place := coming.file.temporary) is None:
            return None
        return cls(os.path.abspath(place), coming.size, socket.gethostname())

    @contextlib.contextmanager
    def opened(self) -> Iterator[_fs.PatchedFile]:
        """Open the file in a worker; what it wrote is durable at the end of the block, on another machine.

        Raises :class:`EngineError` for a file that is not the one that was begun.
        """
        with _fs.PatchedFile(self.path) as file:
            if file.size != self.size:
                raise EngineError(f"{self.path} is not the file that was begun")
            yield file
            if self.host != socket.gethostname():
                file.sync()


@dataclass(frozen=True)
class RestorePart:
    """Some tensors, or ranges of their chunks, to decode.

    Attributes:
        workplace: the repository.
        manifest: the id of the manifest of the file.
        place: where they belong.
        spans: what is to be decoded.
    """

    workplace: Workplace
    manifest: str
    place: ComingPlace
    spans: tuple[TensorSpan, ...]

    @property
    def length(self) -> int:
        """Raw bytes."""
        return sum(span.length for span in self.spans)


def restore(part: RestorePart) -> int:
    """Write ``part`` to its places; return the bytes written, which are durable on another machine.

    Raises:
        theta.errors.EngineError: the file is not the one that was begun.
        theta.errors.UsageError: this process runs another version of theta.
    """
    objects = part.workplace.opened()
    manifest, offsets = told(part.workplace.repository, part.manifest)
    written = 0
    with parallel.limited(1), part.place.opened() as file:
        for span in part.spans:
            for offset, raw in _decoded(objects, manifest.by_name[span.name], span):
                for start in offsets[span.name]:
                    file.patch(start + offset, raw)
                written += len(raw)
    return written


def _decoded(objects: Objects, line: Line, span: TensorSpan) -> Iterator[tuple[int, memoryview]]:
    """Yield the offset in the tensor and the bytes of each chunk that begins in ``span``."""
    for offset, read in StoredTensor(objects, line, kept=0).pieces():
        if span.start <= offset < span.stop:
            yield offset, read()


@lru_cache(4)
def told(repository: str, oid: str) -> tuple[Manifest, Mapping[str, list[int]]]:
    """Return the manifest in blob ``oid``, and where its tensors begin; a worker reads them once."""
    manifest = file_parts.manifest_of(repository, oid)
    restorer = Restorer(Objects(Repository.discover(repository)), manifest)
    offsets: dict[str, list[int]] = {}
    for name, offset, _ in restorer.plan.extents():
        offsets.setdefault(name, []).append(offset)
    return manifest, offsets


class RestoreWorkers(Workers):
    """Workers that decode what a file lacks."""

    def fill(
        self,
        coming: ComingFile,
        manifest: Manifest,
        oid: str,
        places: Mapping[str, Place],
        progress: Progress | None,
    ) -> None:
        """Write the tensors of ``manifest`` that neither ``coming`` has nor ``places``, and note them.

        ``oid`` is the blob of the manifest, which workers read.
        Nothing is done where that is so little that threads are quicker.

        Raises:
            theta.errors.CodecError: the tensors declare too much work.
            theta.errors.EngineError: the workers are lost again and again.
        """
        todo = [line for line in _wanted(coming, manifest, places) if line.nbytes]
        place = ComingPlace.of(coming)
        if place is None or not parallel.is_worth_spreading(sum(line.nbytes for line in todo)):
            return
        self.objects.obtain({line.tree: line.nbytes for line in todo})
        self._require_bounded(coming, todo)
        where = Workplace.of(self.objects)
        cuts = rounds.cut([*spans(todo)], lambda span: span.length)
        parts = [RestorePart(where, oid, place, tuple(cut)) for cut in cuts]
        for _ in rounds.each(self.engine, restore, parts, progress):
            pass
        for line in todo:
            coming.done(line.name, line.digest)

    def _require_bounded(self, coming: ComingFile, todo: Iterable[Line]) -> None:
        """Raise before the first byte if the tensors declare more work than is due to the file."""
        Budget(coming.size).spend(sum(declared(record_of(self.objects, line).layers) for line in todo))


def _wanted(coming: ComingFile, manifest: Manifest, places: Mapping[str, Place]) -> Iterator[Line]:
    """Yield the lines that are decoded; those whose value lies in an old file are copied by threads."""
    for line in manifest.lines:
        place = places.get(line.name)
        is_there = place is not None and place.line.same_value(line)
        if not is_there and not coming.holds(line):
            yield line


def spans(lines: Iterable[Line]) -> Iterator[TensorSpan]:
    """Yield each tensor whole, and large ones in ranges of chunks."""
    for line in lines:
        step = line.nbytes if line.nbytes <= LARGEST else rounds.LARGEST
        for start in range(0, line.nbytes, step):
            yield TensorSpan(line.name, start, min(start + step, line.nbytes))
