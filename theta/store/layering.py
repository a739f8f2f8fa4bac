"""Storing a changed tensor in the fewest bytes: a new layer on a layer that is there, or a new base.

The rules that keep restoring fast whatever happened before: at most four layers, and no tensor
reads more than twice its dense size (three times, where dtype or shape changed).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from theta.codecs import dense
from theta.codecs.base import Encoded, Range, Tensor, word_size
from theta.errors import CorruptError, MissingObjectsError
from theta.store import tensors
from theta.store.layers import LayerView
from theta.store.manifest import Line
from theta.store.objects import Objects
from theta.store.packs import PackWriter
from theta.store.tensors import Chunk, Layer, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

READ_BOUND: Final = 2.0
READ_BOUND_CHANGED: Final = 3.0
LARGEST: Final = 192 << 20
"""Raw bytes of the largest tensor that is compared with bases: it is held in memory for that."""

Parts = Sequence[tuple[int, bytes]]


@dataclass(frozen=True)
class Planned:
    """A tensor ready to be written: files are ids of blobs that exist, or new payloads."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    chunks: tuple[Chunk, ...]
    files: dict[str, str | bytes]

    def write(self, pack: PackWriter) -> Line:
        """Add blobs and tree to ``pack``; the answer is the manifest's line."""
        files = {
            name: body if isinstance(body, str) else pack.blob(body) for name, body in self.files.items()
        }
        record = Record(self.dtype, self.shape, self.layers, self.chunks, files)
        entries = [(tensors.RECORD, 0o100644, pack.blob(record.data(), text=True))]
        entries += [(file, 0o100644, oid) for file, oid in files.items()]
        return Line(self.name, self.dtype, self.shape, record.digest, pack.tree(entries))


@dataclass(frozen=True)
class _Candidate:
    """A layer of an existing tensor that a new layer may rest on, and what reading it takes."""

    record: Record
    number: int
    chain: tuple[int, ...]
    cost: int


Coded = tuple[int, bytes, str | bytes]
"""A chunk: its raw length, the digest of its raw bytes, and its payload or the blob that has it."""


def write_dense(
    pack: PackWriter, name: str, dtype: str, shape: tuple[int, ...], coded: Iterable[Coded]
) -> Line:
    """Write a tensor of one dense layer from chunks that are coded; holds one chunk at a time."""
    chunks: list[Chunk] = []
    files: dict[str, str | bytes] = {}
    for number, (length, digest, body) in enumerate(coded):
        chunks.append(Chunk(length, digest))
        files[tensors.file_name(0, number)] = body if isinstance(body, str) else pack.blob(body)
    layers = (Layer(dense.NAME, None, dtype, shape),) if chunks else ()
    return Planned(name, dtype, shape, layers, tuple(chunks), files).write(pack)


def read_record(objects: Objects, tree: str) -> Record:
    """The ``@tensor`` of tensor tree ``tree``."""
    entry = objects.tree(tree).get(tensors.RECORD)
    if entry is None:
        raise MissingObjectsError(f"tree {tree} is not a tensor")
    return tensors.parse(objects.text(entry[1], tensors.MAX_RECORD))


def plan(objects: Objects, name: str, new: Tensor, parts: Parts, bases: Sequence[Line]) -> Planned:
    """The cheapest way to store ``new``, whose chunks have lengths and digests ``parts``.

    ``bases`` are versions of the tensor, the likeliest first. Same input, same plan, for any
    number of threads.
    """
    from theta.codecs import chooser

    records = _records(objects, bases)
    kept = _reusable(objects, new, parts, records)
    ranges = _ranges(new, parts)
    if records and (found := _on_top(objects, name, new, parts, records[0])) is not None:
        return found
    candidates = _candidates(objects, records)
    while candidates:
        choice = chooser.choose(new, [_load(objects, candidate) for candidate in candidates], ranges)
        if choice.base is None:
            return _dense(name, new, parts, choice.encoded, kept)
        chosen = candidates[choice.base]
        if _bounded(chosen, choice.encoded, new, parts):
            return _layered(name, new, parts, chosen, choice.encoded, range(len(parts)))
        candidates = [other for other in candidates if other.cost < chosen.cost]
    return _dense(name, new, parts, chooser.encode_dense(new, ranges), kept)


def _records(objects: Objects, bases: Sequence[Line]) -> list[Record]:
    found: list[Record] = []
    for line in bases:
        try:
            record = read_record(objects, line.tree)
        except (MissingObjectsError, CorruptError):
            continue
        if record.chunks and record not in found and all(map(objects.has, record.files.values())):
            found.append(record)
    return found


def _ranges(new: Tensor, parts: Parts) -> list[Range]:
    size, ranges, start = word_size(new.dtype), [], 0
    for length, _ in parts:
        ranges.append((start, start + length // size))
        start += length // size
    return ranges


def _reusable(objects: Objects, new: Tensor, parts: Parts, records: Sequence[Record]) -> dict[int, str]:
    """Chunk number -> blob, for chunks that stand densely in the first record already."""
    if not records or len(records[0].layers) != 1 or records[0].dtype != new.dtype:
        return {}
    known = {c.digest: records[0].files[tensors.file_name(0, n)] for n, c in enumerate(records[0].chunks)}
    return {number: known[digest] for number, (_, digest) in enumerate(parts) if digest in known}


def _on_top(objects: Objects, name: str, new: Tensor, parts: Parts, record: Record) -> Planned | None:
    """Where only some chunks changed: a layer on the top one that holds just those."""
    from theta.codecs import chooser

    if (record.dtype, record.shape) != (new.dtype, new.shape) or len(record.layers) >= tensors.MAX_LAYERS:
        return None
    pairs = zip(record.chunks, parts, strict=True)
    changed = [number for number, (chunk, part) in enumerate(pairs) if chunk.digest != part[1]]
    if not changed or len(changed) == len(parts):
        return None
    top = _candidate(objects, record, len(record.layers) - 1)
    ranges = _ranges(new, parts)
    choice = chooser.choose(new, [_load(objects, top)], [ranges[number] for number in changed])
    if choice.base is None or not _bounded(top, choice.encoded, new, parts):
        return None
    return _layered(name, new, parts, top, choice.encoded, changed)


def _candidates(objects: Objects, records: Sequence[Record]) -> list[_Candidate]:
    """Every layer of the first record, and the value of each other one."""
    found = (
        [_candidate(objects, records[0], n) for n in reversed(range(len(records[0].layers)))]
        if records
        else []
    )
    found += [_candidate(objects, record, len(record.layers) - 1) for record in records[1:]]
    return [candidate for candidate in found if len(candidate.chain) < tensors.MAX_LAYERS]


def _candidate(objects: Objects, record: Record, number: int) -> _Candidate:
    chain = [number]
    while (base := record.layers[chain[-1]].base) is not None:
        chain.append(base)
    files = [oid for name, oid in record.files.items() if int(name.split(".")[0]) in chain]
    return _Candidate(record, number, tuple(sorted(chain)), sum(objects.size(oid) for oid in files))


def _load(objects: Objects, candidate: _Candidate) -> Tensor:
    layer = candidate.record.layers[candidate.number]
    return Tensor(layer.dtype, layer.shape, _words(LayerView(objects, candidate.record, candidate.number)))


def _words(view: LayerView) -> NDArray:  # type: ignore[type-arg]
    return view.read(0, sum(view.lengths) // word_size(view.dtype))


def _bounded(candidate: _Candidate, encoded: Encoded, new: Tensor, parts: Parts) -> bool:
    """Whether reading the new layer with all below it stays within the bound."""
    from theta.codecs import chooser

    first = chooser.encode_dense(new, _ranges(new, parts)[:1]).size
    dense_size = first * sum(length for length, _ in parts) / parts[0][0]
    layers = candidate.record.layers
    same = all((layers[n].dtype, layers[n].shape) == (new.dtype, new.shape) for n in candidate.chain)
    bound = READ_BOUND if same else READ_BOUND_CHANGED
    return candidate.cost + encoded.size <= bound * dense_size


def _layered(
    name: str, new: Tensor, parts: Parts, below: _Candidate, encoded: Encoded, numbers: Sequence[int]
) -> Planned:
    """A tensor of the chain of ``below`` and one more layer with the chunks ``numbers``."""
    place = {old: fresh for fresh, old in enumerate(below.chain)}
    layers = []
    for old in below.chain:
        layer = below.record.layers[old]
        layers.append(
            Layer(layer.codec, None if layer.base is None else place[layer.base], layer.dtype, layer.shape)
        )
    files: dict[str, str | bytes] = {}
    for file, oid in below.record.files.items():
        layer_text, _, rest = file.partition(".")
        if int(layer_text) in place:
            files[f"{place[int(layer_text)]}.{rest}"] = oid
    number = len(layers)
    layers.append(Layer(encoded.codec, place[below.number], new.dtype, new.shape))
    if encoded.shared is not None:
        files[tensors.shared_name(number)] = encoded.shared
    files |= {
        tensors.file_name(number, chunk): body for chunk, body in zip(numbers, encoded.chunks, strict=True)
    }
    return Planned(name, new.dtype, new.shape, tuple(layers), _chunks(parts), files)


def _dense(name: str, new: Tensor, parts: Parts, encoded: Encoded, kept: dict[int, str]) -> Planned:
    files: dict[str, str | bytes] = {
        tensors.file_name(0, n): kept.get(n, body) for n, body in enumerate(encoded.chunks)
    }
    return Planned(
        name, new.dtype, new.shape, (Layer(dense.NAME, None, new.dtype, new.shape),), _chunks(parts), files
    )


def _chunks(parts: Parts) -> tuple[Chunk, ...]:
    return tuple(Chunk(length, digest) for length, digest in parts)
