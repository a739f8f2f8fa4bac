"""Storing a changed tensor in the fewest bytes: a new layer on a layer that is there, or a new base.

The rules that keep restoring fast whatever happened before: at most four layers, and no tensor
reads more than twice its dense size (three times, where dtype or shape changed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from theta._numpy import np
from theta.codecs import dense
from theta.codecs.base import Base, Each, Encode, Encoded, Range, TensorWords, word_dtype, word_size
from theta.errors import CorruptError, MissingObjectsError
from theta.lazy import Module, lazy
from theta.store.format import tensor_tree
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import Chunk, Layer, Record
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackEntry, PackWriter
from theta.store.read import layers
from theta.store.read.tensor_records import dense_chunks, has_structure, layer_of, read_record

if TYPE_CHECKING:
    from theta.codecs import chooser
else:
    chooser = Module("theta.codecs.chooser")

READ_BOUND: Final = 2.0
READ_BOUND_CHANGED: Final = 3.0
PATIENCE: Final = 2.3
"""How much more than a step's waste a lower layer may cost (bench/histories.py)."""

_SURELY: Final = 0.97
"""The share of a bound up to which an estimate will do; beyond it, a chunk is encoded for it."""

_NEGLIGIBLE: Final = 128
"""The share of a tensor, one in so many bytes, that its record may take without being deflated."""

LARGEST: Final = 192 << 20
"""Raw bytes of the largest tensor that is compared with bases: it is held in memory for that."""

TINY: Final = 128
"""Raw bytes of a tensor that no base makes smaller: another layer takes more in its record and its tree."""

SMALL: Final = 8 << 10
SMALL_IN_ALL: Final = 64 << 10
"""Raw bytes of a changed tensor, and of all of them in a checkpoint, up to which none has a base."""


@dataclass(frozen=True)
class Planned:
    """A tensor ready to be written: files are ids of blobs that exist, or new payloads."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    chunks: tuple[Chunk, ...]
    files: dict[str, str | bytes]

    @property
    def stands_alone(self) -> bool:
        """Whether no base was worth resting on."""
        return len(self.layers) <= 1

    def ready(self, pack: PackWriter) -> Ready:
        """Make all objects of the tensor for ``pack``."""
        return ready_each([self], pack)[0]

    def write(self, pack: PackWriter) -> Line:
        """Add blobs and tree to ``pack``; return the manifest's line."""
        return self.ready(pack).write(pack)


@dataclass(frozen=True)
class Ready:
    """A tensor's line, and the objects that it needs in a pack: blobs of chunks, the record, the tree."""

    line: Line
    entries: tuple[PackEntry, ...]

    def write(self, pack: PackWriter) -> Line:
        """Add the objects to ``pack``; return the line."""
        *blobs, record, tree = self.entries
        is_new = True in list(map(pack.add, blobs))
        pack.add(tree, is_new=pack.add(record, is_new=is_new))
        return self.line


def ready_each(planned: Sequence[Planned], pack: PackWriter) -> list[Ready]:
    """Make all objects of tensors for ``pack``: ids of two large blobs take the time of one."""
    bodies = [body for one in planned for body in one.files.values() if not isinstance(body, str)]
    entries = iter(pack.blob_entries(bodies))
    return [_ready(one, entries, pack) for one in planned]


def _ready(planned: Planned, entries: Iterator[PackEntry], pack: PackWriter) -> Ready:
    """Make the objects of a tensor, the next of ``entries`` among them."""
    new = {name: next(entries) for name, body in planned.files.items() if not isinstance(body, str)}
    files = {name: body if isinstance(body, str) else new[name].oid for name, body in planned.files.items()}
    record = Record(planned.dtype, planned.shape, planned.layers, planned.chunks, files)
    data, size = record.data(), sum(one.size for one in new.values())
    text = pack.blob_entry(data, text=size < _NEGLIGIBLE * len(data))
    rows = [(tensor_tree.RECORD, 0o100644, text.oid)]
    tree = pack.tree_entry(rows + [(file, 0o100644, oid) for file, oid in files.items()])
    line = Line(planned.name, planned.dtype, planned.shape, record.digest, tree.oid)
    return Ready(line, (*new.values(), text, tree))


@dataclass(frozen=True)
class Changed:
    """A tensor that is to be stored: its name, its words, and the chunks that they are cut into."""

    name: str
    tensor: TensorWords
    chunks: Sequence[Chunk]

    @lazy
    def ranges(self) -> list[Range]:
        """The words of each chunk."""
        size = word_size(self.tensor.dtype)
        return [*pairwise(accumulate((chunk.length // size for chunk in self.chunks), initial=0))]

    def planned(self, layers: Sequence[Layer], files: dict[str, str | bytes]) -> Planned:
        """Return the tensor with these layers and files."""
        new = self.tensor
        return Planned(self.name, new.dtype, new.shape, tuple(layers), tuple(self.chunks), files)

    def alone(self, files: dict[str, str | bytes]) -> Planned:
        """Return the tensor with these files of a layer on nothing; without words it has none."""
        layer = Layer(dense.NAME, None, self.tensor.dtype, self.tensor.shape)
        return self.planned([layer] if files else [], files)


@dataclass(frozen=True)
class _Candidate:
    """A layer of an existing tensor that a new layer may rest on, and what reading it takes."""

    record: Record
    number: int
    chain: tuple[int, ...]
    cost: int
    view: Base


@dataclass(frozen=True)
class Hints:
    """Hints for the plan of a tensor."""

    given: Encode | None = None
    """Encodes the tensor on its first base by an update that the user brought."""
    each: Each = map
    """Runs the encoding of chunks; it may do so on threads."""
    values: Mapping[str, Base] = field(default_factory=dict)
    """Values by their digest that are read faster than from the repository."""
    structure: bool = True
    """Whether layers of structure are tried: that of :func:`theta.codecs.chooser.choose`."""
    hidden: bool = True
    """Whether factors are looked for that do not show at a glance, likewise."""


PLAIN: Final = Hints()

CodedChunk = tuple[Chunk, PackEntry]
"""A chunk, and its payload ready for a pack."""


def write_dense(
    pack: PackWriter, name: str, dtype: str, shape: tuple[int, ...], coded: Iterable[CodedChunk]
) -> Line:
    """Write a tensor of one dense layer from chunks that are coded; holds one chunk at a time."""
    chunks: list[Chunk] = []
    blobs: list[str] = []
    for chunk, entry in coded:
        pack.add(entry)
        chunks.append(chunk)
        blobs.append(entry.oid)
    return of_blobs(name, dtype, shape, chunks, blobs).write(pack)


def of_blobs(
    name: str, dtype: str, shape: tuple[int, ...], chunks: Sequence[Chunk], blobs: Sequence[str]
) -> Planned:
    """Return a tensor of one dense layer whose chunks are in these blobs."""
    layers = (Layer(dense.NAME, None, dtype, shape),) if chunks else ()
    files: dict[str, str | bytes] = {tensor_tree.file_name(0, n): oid for n, oid in enumerate(blobs)}
    return Planned(name, dtype, shape, layers, tuple(chunks), files)


def worth_comparing(lengths: Iterable[int], in_all: int = 0) -> bool:
    """Return whether changed tensors of these raw lengths, ``in_all`` at least, are compared with bases.

    The codecs of layers need numba, which takes longer to start than a few small tensors are worth.
    """
    sizes = list(lengths)
    return max(sizes, default=0) > SMALL or max(sum(sizes), in_all) > SMALL_IN_ALL


def plan(objects: Objects, changed: Changed, bases: Sequence[Line], hints: Hints = PLAIN) -> Planned:
    """Return the cheapest way to store ``changed``.

    ``bases`` are versions of the tensor, the likeliest first.  Same input, same plan, for any number of
    threads.
    """
    records = _records(objects, bases)
    if hints.given is not None and (found := _by_given(objects, changed, records, hints.given)) is not None:
        return found
    if records and (found := _on_top(objects, changed, records[0])) is not None:
        return found
    stacks = [_stack(objects, record, hints.values) for record in records]
    candidates = _candidates(stacks)
    is_full = bool(records) and len(records[0].layers) == tensor_tree.MAX_LAYERS
    if is_full:
        candidates = _renewed(changed, stacks[0][-1], candidates)
    while candidates:
        loaded = [_load(candidate, hints.each) for candidate in candidates]
        searched = hints.structure, hints.hidden
        choice = chooser.choose(changed.tensor, loaded, changed.ranges, hints.each, *searched)
        if choice.base is None:
            return _dense(changed, choice.encoded, records)
        chosen = candidates[choice.base]
        if _bounded(chosen, choice.encoded, changed, choice.alone):
            return _layered(changed, chosen, choice.encoded, range(len(changed.chunks)))
        candidates = [other for other in candidates if other.cost < chosen.cost]
        if chosen.record is records[0] and not is_full:
            candidates, is_full = _renewed(changed, stacks[0][-1], candidates), True
    return _dense(changed, chooser.encode_dense(changed.tensor, changed.ranges), records)


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


def _reusable(changed: Changed, records: Sequence[Record]) -> dict[int, str]:
    """Return chunk number -> blob, for chunks that are dense in the first record already."""
    if not records or records[0].dtype != changed.tensor.dtype:
        return {}
    known = dense_chunks(records[0])
    return {n: known[chunk.digest] for n, chunk in enumerate(changed.chunks) if chunk.digest in known}


def _on_top(objects: Objects, changed: Changed, record: Record) -> Planned | None:
    """Return a layer on the top one with the chunks that differ; None if all do, or it is not worth it."""
    new = changed.tensor
    if (record.dtype, record.shape) != (new.dtype, new.shape) or len(record.layers) >= tensor_tree.MAX_LAYERS:
        return None
    pairs = zip(record.chunks, changed.chunks, strict=True)
    numbers = [number for number, (old, chunk) in enumerate(pairs) if old.digest != chunk.digest]
    if not numbers or len(numbers) == len(changed.chunks):
        return None
    top, ranges = _stack(objects, record, {})[-1], changed.ranges
    choice = chooser.choose(new, [_load(top)], [ranges[number] for number in numbers])
    if choice.base is None:
        return None
    if not _bounded(top, choice.encoded, changed, chooser.price_alone(new, ranges)):
        return None
    return _layered(changed, top, choice.encoded, numbers)


def _by_given(objects: Objects, changed: Changed, records: Sequence[Record], given: Encode) -> Planned | None:
    """Return a layer by ``given`` on the top one, if there may be one more."""
    if not records or len(records[0].layers) >= tensor_tree.MAX_LAYERS:
        return None
    top, ranges = _stack(objects, records[0], {})[-1], changed.ranges
    encoded = given(changed.tensor, _load(top), ranges)
    if not _bounded(top, encoded, changed, chooser.price_alone(changed.tensor, ranges)):
        return None
    return _layered(changed, top, encoded, range(len(changed.chunks)))


def _candidates(stacks: Sequence[Sequence[_Candidate]]) -> list[_Candidate]:
    """Return every layer of the first record, and the value of each other one."""
    found = [*reversed(stacks[0])] if stacks else []
    found += [stack[-1] for stack in stacks[1:]]
    return [candidate for candidate in found if len(candidate.chain) < tensor_tree.MAX_LAYERS]


def _renewed(changed: Changed, top: _Candidate, candidates: list[_Candidate]) -> list[_Candidate]:
    """Return the candidates when nothing may rest on ``top``: layers below it, and other values.

    The highest layer is the nearest, but the longer it serves, the more a commit costs.  A new layer on
    a lower one costs more now and serves the commits to come.  It is due when it costs no more than
    ``PATIENCE`` times what is wasted: costs are taken above that of a step from the newest version.
    The result is empty when a new base is due.
    """
    new, ranges = changed.tensor, changed.ranges

    own = [candidate for candidate in candidates if candidate.record is top.record]
    if not own:
        return candidates
    newest = _load(top)
    step = chooser.price(new, newest, ranges)
    # Factors of several updates are factors too; steps of training have none, and need no search.
    structure = step < chooser.price(new, newest, ranges, structure=False)
    structure |= has_structure(top.record)
    prices = [chooser.price(new, _load(candidate), ranges, structure) for candidate in own]
    step = min(step, *prices)
    best = prices.index(min(prices))
    for lower, cost in enumerate([*prices, chooser.price_alone(new, ranges)]):
        if lower == best + 1 and cost - step <= PATIENCE * (prices[best] - step):
            best = lower
            if best == len(own):
                return []
    others = [candidate for candidate in candidates if candidate.record is not top.record]
    return [*own[best:], *others]


def _stack(objects: Objects, record: Record, values: Mapping[str, Base]) -> list[_Candidate]:
    """Return all layers of a record, lowest first; ``values`` may have the highest, its value."""
    views: list[Base] = [*layers.stack(objects, record)]
    views[-1] = values.get(record.digest, views[-1])
    return [_candidate(objects, record, number, view) for number, view in enumerate(views)]


def _candidate(objects: Objects, record: Record, number: int, view: Base) -> _Candidate:
    chain = [number]
    while (base := record.layers[chain[-1]].base) is not None:
        chain.append(base)
    files = [oid for name, oid in record.files.items() if layer_of(name) in chain]
    return _Candidate(record, number, tuple(sorted(chain)), sum(map(objects.size, files)), view)


def _load(candidate: _Candidate, each: Each = map) -> TensorWords:
    layer, view = candidate.record.layers[candidate.number], candidate.view
    if isinstance(view, layers.LayerView):
        return TensorWords(layer.dtype, layer.shape, view.whole(each))
    size = word_size(layer.dtype)
    ends = [*accumulate(length // size for length in tensor_tree.chunk_lengths(layer.dtype, layer.shape))]
    if len(ends) <= 1:
        return TensorWords(layer.dtype, layer.shape, view.read(0, sum(ends)))
    words = np.empty(ends[-1], word_dtype(layer.dtype))

    def fill(part: Range) -> None:
        words[slice(*part)] = view.read(*part)

    list(each(fill, pairwise([0, *ends])))
    return TensorWords(layer.dtype, layer.shape, words)


def _bounded(candidate: _Candidate, encoded: Encoded, changed: Changed, alone: float) -> bool:
    """Return whether reading the new layer with all below it stays within the bounds.

    ``alone`` is about what the tensor takes without a base.
    """
    new, chunks = changed.tensor, changed.chunks
    read = [candidate.record.layers[number] for number in candidate.chain]
    if layers.declares_too_much(_chain(candidate, encoded.codec, changed), new.words.nbytes):
        return False
    same = all((layer.dtype, layer.shape) == (new.dtype, new.shape) for layer in read)
    bound, total = READ_BOUND if same else READ_BOUND_CHANGED, candidate.cost + encoded.size
    if total <= _SURELY * bound * alone:
        return True
    first = chooser.encode_dense(new, changed.ranges[:1]).size
    return total <= bound * first * sum(chunk.length for chunk in chunks) / chunks[0].length


def _layered(changed: Changed, below: _Candidate, encoded: Encoded, numbers: Sequence[int]) -> Planned:
    """Return a tensor of the chain of ``below`` and one more layer with the chunks ``numbers``."""
    place = {old: fresh for fresh, old in enumerate(below.chain)}
    files: dict[str, str | bytes] = {}
    for file, oid in below.record.files.items():
        if (old := layer_of(file)) in place:
            files[f"{place[old]}.{file.partition('.')[2]}"] = oid
    number = len(place)
    if encoded.shared is not None:
        files[tensor_tree.shared_name(number)] = encoded.shared
    files |= {
        tensor_tree.file_name(number, chunk): body
        for chunk, body in zip(numbers, encoded.chunks, strict=True)
    }
    return changed.planned(_chain(below, encoded.codec, changed), files)


def _chain(below: _Candidate, codec: str, changed: Changed) -> list[Layer]:
    """Return the layers of the chain of ``below``, numbered afresh, and the one of ``changed`` on them."""
    place = {old: fresh for fresh, old in enumerate(below.chain)}
    chain = []
    for old in below.chain:
        layer = below.record.layers[old]
        base = None if layer.base is None else place[layer.base]
        chain.append(Layer(layer.codec, base, layer.dtype, layer.shape))
    return [*chain, Layer(codec, place[below.number], changed.tensor.dtype, changed.tensor.shape)]


def plan_alone(
    tensors: Sequence[Changed], kept: Callable[[Changed], Mapping[tuple[str, bytes], str]]
) -> list[Planned]:
    """Plan tensors without bases; ``kept`` gives the stored chunks of one: (dtype, digest) -> blob."""
    files: list[dict[str, str | bytes]] = [{} for _ in tensors]
    new: dict[str, list[tuple[int, str, Range]]] = {}
    for k, changed in enumerate(tensors):
        blobs, dtype = kept(changed), changed.tensor.dtype
        for number, (chunk, part) in enumerate(zip(changed.chunks, changed.ranges, strict=True)):
            file = tensor_tree.file_name(0, number)
            files[k][file] = blobs.get((dtype, chunk.digest), "")
            if not files[k][file]:
                new.setdefault(dtype, []).append((k, file, part))
    for dtype, parts in new.items():
        words = [tensors[k].tensor.read(*part) for k, _, part in parts]
        for (k, file, _), body in zip(parts, dense.encode_each(words, dense.is_rotated(dtype)), strict=True):
            files[k][file] = body
    return [changed.alone(made) for changed, made in zip(tensors, files, strict=True)]


def _dense(changed: Changed, encoded: Encoded, records: Sequence[Record]) -> Planned:
    """Return a tensor of one dense layer; chunks that are dense in the first record keep their blobs."""
    kept = _reusable(changed, records)
    files: dict[str, str | bytes] = {
        tensor_tree.file_name(0, n): kept.get(n, body) for n, body in enumerate(encoded.chunks)
    }
    return changed.alone(files)
