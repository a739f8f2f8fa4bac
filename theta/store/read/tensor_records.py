"""Reading the record of a stored tensor."""

from __future__ import annotations

from theta import codecs
from theta.errors import MissingObjectsError
from theta.store.format import tensor_tree
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import Objects


def read_record(objects: Objects, tree: str) -> Record:
    """The ``@tensor`` of tensor tree ``tree``; raises ``NewerFormatError`` for a codec that is not known."""

    def read() -> Record:
        entry = objects.tree(tree).get(tensor_tree.RECORD)
        if entry is None:
            raise MissingObjectsError(f"tree {tree} is not a tensor")
        record = tensor_tree.parse(objects.text(entry[1], tensor_tree.MAX_RECORD))
        for layer in record.layers:
            codecs.check(layer.codec)
        return record

    return objects.once(tree, tensor_tree.RECORD, read)


def layer_of(file: str) -> int:
    """The layer that a file of a tensor's tree belongs to; -1 where its name is no such file's."""
    text = file.partition(".")[0]
    return int(text) if text in map(str, range(tensor_tree.MAX_LAYERS)) else -1
