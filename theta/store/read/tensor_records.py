"""Reading ``@tensor``, and what a record says of how its tensor is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from theta import codecs
from theta.codecs import lowrank
from theta.errors import CorruptError, MissingObjectsError, ThetaError, concerning
from theta.store.format import record_rules, tensor_tree, written_records
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import Layer, Record
from theta.store.odb.objects import Objects

_OF_WORDS: Final = ("dense/1", "delta/1", "sparse/1", "steps/1", "nudges/1", "cast/1")


def read_record(objects: Objects, tree: str) -> Record:
    """Read the ``@tensor`` of tensor tree ``tree``.

    Raises ``NewerFormatError`` for an unknown codec, and ``CorruptError`` for a record of another tree.
    """

    def read() -> Record:
        files = objects.files(tree)
        oid = files.pop(tensor_tree.RECORD, None)
        if oid is None:
            raise MissingObjectsError(f"tree {tree} is not a tensor")
        record = written_records.read(objects.text(oid, tensor_tree.MAX_RECORD))
        for layer in record.layers:
            codecs.check(layer.codec)
        if record.files != files:
            raise CorruptError(f"tree {tree} does not hold the files that its @tensor names")
        record_rules.check(record)
        return record

    return objects.once(tree, tensor_tree.RECORD, read)


def record_of(objects: Objects, line: Line) -> Record:
    """Read the ``@tensor`` of ``line``; raises ``CorruptError`` if it is of another value."""
    objects.expect({line.tree: line.nbytes})
    with concerning(line.name):
        record = read_record(objects, line.tree)
    if (record.dtype, record.shape, record.digest) != (line.dtype, line.shape, line.digest):
        raise CorruptError(f"{line.name}: the tensor tree is not of the value that the manifest names")
    return record


def record_here(objects: Objects, line: Line) -> Record | None:
    """Read the ``@tensor`` of ``line`` where that only saves time; None when it is not here, or damaged."""
    files = objects.ids_here(line.tree) if line.nbytes else None
    oid = files.get(tensor_tree.RECORD) if files is not None else None
    if oid is None or not objects.has(oid):
        return None
    try:
        return record_of(objects, line)
    except ThetaError:
        return None


def layer_of(file: str) -> int:
    """Return the layer that a file of a tensor's tree belongs to; -1 for any other name."""
    return tensor_tree.place_of(file)[0]


def ranks(objects: Objects, record: Record) -> tuple[int, ...]:
    """Return the ranks of the products that layers of ``record`` add to what is below, lowest first."""
    found = (
        record.files.get(tensor_tree.shared_name(number))
        for number, layer in enumerate(record.layers)
        if layer.codec == lowrank.NAME
    )
    return tuple(lowrank.rank_of(objects.chunk(oid)) for oid in found if oid is not None)


def has_structure(record: Record) -> bool:
    """Return whether a layer is described by more than the differences of its words."""
    return not is_of_words(record.layers)


def is_of_words(layers: Iterable[Layer]) -> bool:
    """Return whether all these layers are described by the differences of their words."""
    return all(layer.codec in _OF_WORDS for layer in layers)


def common_layer(new: Record, old: Record) -> int | None:
    """Return the layer of ``new``, below its value, that is the value of ``old``; None when there is none."""
    if not old.layers:
        return None
    value = _content(old, len(old.layers) - 1)
    number = new.layers[-1].base if new.layers else None
    while number is not None and _content(new, number) != value:
        number = new.layers[number].base
    return number


def layer_with(record: Record, files: Mapping[str, str], value: Line) -> int | None:
    """Return the layer of ``record``, below its value, with these files and those of the layers below it.

    ``files`` (name -> id) are those of the tree of ``value``, which layers of other codecs may have too: what
    comes out is to be proven.  None when there is none, or the layers have other numbers here.
    """
    wanted = {name: oid for name, oid in files.items() if name != tensor_tree.RECORD}
    number = record.layers[-1].base if record.layers else None
    while number is not None and _files_down(record, number) != wanted:
        number = record.layers[number].base
    if number is None:
        return None
    layer = record.layers[number]
    return number if (layer.dtype, layer.shape) == (value.dtype, value.shape) else None


def _files_down(record: Record, number: int | None) -> dict[str, str]:
    """Return the files of layer ``number`` and of those that it rests on."""
    layers = set[int]()
    while number is not None:
        layers.add(number)
        number = record.layers[number].base
    return {name: oid for name, oid in record.files.items() if layer_of(name) in layers}


def _content(record: Record, number: int) -> tuple[object, ...]:
    """Return all that layer ``number`` and those below it are made of."""
    layer, rows = record.layers[number], []
    for name, oid in record.files.items():
        if layer_of(name) == number:
            rows.append((name.partition(".")[2], oid))
    below = None if layer.base is None else _content(record, layer.base)
    return layer.codec, layer.dtype, layer.shape, tuple(sorted(rows)), below


def of_words(record: Record, above: int) -> bool:
    """Return whether each chunk of the layers above ``above`` needs that chunk of the layer below alone."""
    number: int | None = len(record.layers) - 1
    while number is not None and number != above:
        layer = record.layers[number]
        if layer.codec not in _OF_WORDS:
            return False
        number = layer.base
    return number is not None


def dense_chunks(record: Record) -> dict[bytes, str]:
    """Return digest of a raw chunk -> blob for a tensor of one dense layer; empty for others."""
    if len(record.layers) != 1:
        return {}
    return {chunk.digest: record.files[tensor_tree.file_name(0, n)] for n, chunk in enumerate(record.chunks)}
