"""From a file to a manifest: what is known keeps its line, what is new is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from theta import codecs
from theta.errors import MissingObjectsError
from theta.formats.layout import Source, Tensor
from theta.progress import Progress, begin
from theta.store.files.ahead import Begun
from theta.store.files.file_scan import Parts, Scan
from theta.store.files.one_reading import Digested, Reading
from theta.store.format import listings, tensor_tree
from theta.store.format.manifest import Line, Manifest
from theta.store.format.tensor_tree import Chunk
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter
from theta.store.read.tensor_records import dense_chunks, read_record
from theta.store.write.bases import Nearby
from theta.store.write.guidance import ALONE, Guidance
from theta.store.write.tensor_stream import Lines, Lookup, TensorStream

Chunks = Sequence[Chunk]


@dataclass
class Stored:
    """The result of a snapshot."""

    manifest: Manifest
    note: str = ""
    new: list[str] = field(default_factory=list)
    elsewhere: int = 0
    """Bytes of the packs that other processes wrote."""


class OtherProcesses(Protocol):
    """Other processes that store the tensors of one file."""

    def store(
        self,
        stream: TensorStream,
        tensors: Sequence[Tensor],
        expected: Mapping[str, Chunks],
        progress: Progress | None,
    ) -> Lines | None:
        """Store what is new of ``tensors`` as ``stream`` would; None to leave it to ``stream``."""
        ...


def prepare() -> None:
    """Import now what storing a changed tensor will need."""
    codecs.prepare(encoding=True)


class Snapshot:
    """Stores one file into a pack.

    Args:
        objects: the repository's objects.
        pack: where new objects go.
        bases: manifests of the parents (HEAD, MERGE_HEAD), whose trees are in the repository.
        digested: takes the digests of chunks, as in :class:`~theta.store.files.one_reading.Reading`.
    """

    def __init__(
        self,
        objects: Objects,
        pack: PackWriter,
        bases: Sequence[Manifest],
        digested: Digested = Chunk.of_each,
    ) -> None:
        self._objects, self._digested = objects, digested
        self._pack = pack
        self._bases = bases

    def store(
        self,
        source: Source,
        found: Parts,
        store: str,
        kept: Manifest | None,
        progress: Progress | None = None,
    ) -> Stored:
        """Store what is new of ``found``; return its manifest, named ``store``.

        Tensors whose value stands in ``kept`` (the index) or in a base keep their tree.
        """
        return self.conclude(found, store, self.tensors(source, found, store, kept, progress))

    def conclude(self, found: Parts, store: str, made: Lines) -> Stored:
        """Store all but the tensors of ``found``, whose lines are ``made``; return its manifest."""
        skeleton = found.skeleton.write(self._pack)
        whole = Manifest(found.layout.format, store, skeleton, tuple(sorted_lines(made.lines)))
        return Stored(listings.write(self._pack, whole), found.note, made.new, made.elsewhere)

    def tensors(
        self,
        source: Source,
        found: Parts,
        store: str,
        kept: Manifest | None,
        progress: Progress | None = None,
        *,
        guidance: Guidance = ALONE,
        elsewhere: OtherProcesses | None = None,
    ) -> Lines:
        """Store what is new of the tensors of ``found``; return the lines of all.

        Only those are read whose digests ``found`` does not know, or that are new.  ``guidance`` is what
        other parts of the file told; ``elsewhere``, if it takes them, stores them in other processes.
        """
        nearby = Nearby(self._objects, self._bases, store)
        manifests = [*([kept] if kept else []), *self._bases]
        alike = {(line.dtype, line.shape) for manifest in manifests for line in manifest.lines}
        lookup = Lookup(
            nearby,
            lambda tensor, chunks: self._known_line(tensor, chunks, manifests),
            lambda tensor: (tensor.dtype, tensor.shape) in alike,
            self._reusable,
        )
        todo = found.layout.tensors
        expected = found.known
        known = self._known(todo, expected, lookup)
        rest = [tensor for tensor in todo if tensor.name not in known]
        if isinstance(found, Scan):
            self._expect(rest)
        begin(progress, "storing", sum(tensor.length for tensor in rest))
        begun = found.reading if isinstance(found, Begun) else None
        reading = begun or Reading(source, self._digested)
        stream = TensorStream(source, lookup, self._pack, expected, reading, guidance)
        made = elsewhere.store(stream, rest, expected, progress) if elsewhere is not None else None
        made = stream.store(rest, progress) if made is None else made
        known |= {line.name: line for line in made.lines}
        return replace(made, lines=[known[tensor.name] for tensor in todo])

    def _known(
        self, tensors: Sequence[Tensor], expected: Mapping[str, Chunks], lookup: Lookup
    ) -> dict[str, Line]:
        """Return the lines of tensors whose digests are known, and stored."""
        pairs = ((tensor, expected[tensor.name]) for tensor in tensors if tensor.name in expected)
        lines = ((tensor.name, lookup.line(tensor, chunks)) for tensor, chunks in pairs)
        return {name: line for name, line in lines if line is not None}

    def _expect(self, new: Sequence[Tensor]) -> None:
        """Tell the repository which tensors will be read."""
        bases = (base.by_name.get(tensor.name) for base in self._bases for tensor in new)
        self._objects.expect({line.tree: line.nbytes for line in bases if line is not None})

    def _known_line(self, tensor: Tensor, chunks: Chunks, manifests: Sequence[Manifest]) -> Line | None:
        digest = tensor_tree.value_digest(tensor.dtype, tensor.shape, chunks) if manifests else ""
        for manifest in manifests:
            line = manifest.by_name.get(tensor.name)
            if line is None or line.digest != digest:
                line = manifest.by_digest.get(digest)
            if line is not None and self._objects.has(line.tree):
                return Line(tensor.name, tensor.dtype, tensor.shape, digest, line.tree)
        return None

    def _reusable(self, name: str) -> dict[tuple[str, bytes], str]:
        """Return (dtype, digest of a raw chunk) -> blob, of the tensor that had this name before."""
        found: dict[tuple[str, bytes], str] = {}
        for manifest in self._bases:
            line = manifest.by_name.get(name)
            if line is not None:
                found.update(self._dense_chunks(line))
        return found

    def _dense_chunks(self, line: Line) -> dict[tuple[str, bytes], str]:
        try:
            record = read_record(self._objects, line.tree)
        except MissingObjectsError:
            return {}
        known = dense_chunks(record)
        return {(record.dtype, digest): oid for digest, oid in known.items() if self._objects.has(oid)}


def sorted_lines(lines: Iterable[Line]) -> list[Line]:
    """Return lines sorted by name, so that two writers agree on the place of a new one."""
    return sorted(lines, key=lambda line: line.name)
