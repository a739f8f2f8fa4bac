"""From a file to a manifest: hash, keep what is known, encode what is new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from theta.codecs import dense
from theta.codecs.base import TensorWords
from theta.errors import ChangedWhileReadError, MissingObjectsError
from theta.formats.layout import Source, Tensor
from theta.parallel import ordered
from theta.progress import Progress, begin
from theta.store.files.file_scan import Scan
from theta.store.format import listings, tensor_tree
from theta.store.format.manifest import Line, Manifest
from theta.store.format.tensor_tree import Chunk
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter
from theta.store.read.tensor_records import dense_chunks, read_record
from theta.store.write import layer_plan
from theta.store.write.bases import Nearby
from theta.store.write.layer_plan import Changed

Chunks = Sequence[Chunk]

_IN_FLIGHT: Final = 48 << 20
"""Raw bytes of the tensors that are compared with their bases at one time."""


@dataclass
class Stored:
    """What a snapshot came to."""

    manifest: Manifest
    note: str = ""
    new: list[str] = field(default_factory=list)


class Snapshot:
    """Stores scanned files into one pack.

    Args:
        objects: the repository's objects.
        pack: where new objects go.
        bases: manifests of the parents (HEAD, MERGE_HEAD), whose trees are in the repository.
    """

    def __init__(self, objects: Objects, pack: PackWriter, bases: Sequence[Manifest]) -> None:
        self._objects = objects
        self._pack = pack
        self._bases = bases

    def store(
        self, source: Source, found: Scan, store: str, kept: Manifest | None, progress: Progress | None = None
    ) -> Stored:
        """Store what is new of ``found``; return its manifest, named ``store``.

        Tensors whose value stands in ``kept`` (the index) or in a base keep their tree.
        """
        result = Stored(
            Manifest(found.layout.format, store, found.skeleton.write(self._pack), ()), found.note
        )
        todo = list(zip(found.layout.tensors, found.chunks, strict=True))
        known = [self._known_line(tensor, chunks, kept) for tensor, chunks in todo]
        result.new = [tensor.name for (tensor, _), line in zip(todo, known, strict=True) if line is None]
        changed = [item for item, line in zip(todo, known, strict=True) if line is None]
        bases = (base.by_name.get(name) for base in self._bases for name in result.new)
        self._objects.expect({line.tree: line.nbytes for line in bases if line is not None})
        nearby = Nearby(self._objects, self._bases, store)
        made = iter(self._encoded(source, changed, nearby, progress))
        lines = [line if line is not None else next(made) for line in known]
        whole = Manifest(found.layout.format, store, result.manifest.skeleton, tuple(sorted_lines(lines)))
        result.manifest = listings.write(self._pack, whole)
        return result

    def _encoded(
        self,
        source: Source,
        changed: Sequence[tuple[Tensor, Chunks]],
        nearby: Nearby,
        progress: Progress | None,
    ) -> Iterator[Line]:
        """The lines of new tensors: against their bases where they have some, else densely."""
        begin(progress, "storing", sum(tensor.length for tensor, _ in changed))
        compare = layer_plan.worth_comparing(tensor.length for tensor, _ in changed)

        def work(item: tuple[Tensor, Chunks]) -> layer_plan.Planned | None:
            tensor, chunks = item
            if not (compare and chunks) or tensor.dtype == "bytes" or tensor.length > layer_plan.LARGEST:
                return None
            if not nearby.may_have(tensor.name, tensor.dtype, tensor.shape):
                return None
            words = TensorWords.from_bytes(_read_checked(source, tensor, chunks), tensor.dtype, tensor.shape)
            return nearby.plan(Changed(tensor.name, words, chunks))

        plans = ordered(work, changed, lambda item: item[0].length, _IN_FLIGHT)
        for (tensor, chunks), planned in zip(changed, plans, strict=True):
            if planned is None:
                yield self._encode(source, tensor, chunks, progress)
                continue
            yield planned.write(self._pack)
            if progress is not None:
                progress(tensor.length)

    def _known_line(self, tensor: Tensor, chunks: Chunks, kept: Manifest | None) -> Line | None:
        digest = tensor_tree.value_digest(tensor.dtype, tensor.shape, chunks)
        for manifest in ([kept] if kept else []) + list(self._bases):
            line = manifest.by_name.get(tensor.name)
            if line is None or line.digest != digest:
                line = manifest.by_digest.get(digest)
            if line is not None and self._objects.has(line.tree):
                return Line(tensor.name, tensor.dtype, tensor.shape, digest, line.tree)
        return None

    def _encode(self, source: Source, tensor: Tensor, chunks: Chunks, progress: Progress | None) -> Line:
        reusable = self._reusable(tensor.name)
        starts = [*accumulate((chunk.length for chunk in chunks), initial=tensor.offset)]

        def work(number: int) -> layer_plan.CodedChunk:
            chunk = chunks[number]
            if (oid := reusable.get((tensor.dtype, chunk.digest))) is not None:
                return chunk, oid
            raw = source.read(starts[number], chunk.length)
            if not chunk.holds(raw):
                raise ChangedWhileReadError(f"{tensor.name} changed while it was read; nothing was stored")
            return chunk, dense.encode(raw, tensor.dtype)

        def coded() -> Iterator[layer_plan.CodedChunk]:
            for item in ordered(work, range(len(chunks))):
                yield item
                if progress is not None:
                    progress(item[0].length)

        return layer_plan.write_dense(self._pack, tensor.name, tensor.dtype, tensor.shape, coded())

    def _reusable(self, name: str) -> dict[tuple[str, bytes], str]:
        """(dtype, digest of a raw chunk) -> blob, of the tensor that bore this name before."""
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
    """Lines in the order of a manifest: by name, so that two writers agree where a new one goes."""
    return sorted(lines, key=lambda line: line.name)


def _read_checked(source: Source, tensor: Tensor, chunks: Chunks) -> bytes:
    """The bytes of ``tensor``, proven to be those that were hashed."""
    raw = source.read(tensor.offset, tensor.length)
    start = 0
    for chunk in chunks:
        if not chunk.holds(memoryview(raw)[start : start + chunk.length]):
            raise ChangedWhileReadError(f"{tensor.name} changed while it was read; nothing was stored")
        start += chunk.length
    return raw
