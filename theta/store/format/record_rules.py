"""The rules that tie the layers of a tensor to the files of its tree (format.md, section 4)."""

from __future__ import annotations

from typing import Final

from theta.errors import CorruptError
from theta.store.format.tensor_tree import SHARED, Layer, Record, chunk_count, place_of

_ALONE: Final = "dense/1"
_SHARING: Final = ("scaled/1", "rows/1", "lowrank/1")
"""The codecs whose chunks share a file."""


def check(record: Record) -> None:
    """Raise :class:`CorruptError` for files that belong to no layer, and for layers that lack theirs.

    The codecs are such as this version knows.
    """
    counts = _counts(record)
    shared = set[int]()
    for name in record.files:
        number, chunk = place_of(name)
        if not 0 <= number < len(counts) or chunk >= counts[number]:
            raise CorruptError(f"a tensor has a file {name[:40]!r}, which belongs to none of its layers")
        if chunk == SHARED:
            shared.add(number)
    for number, layer in enumerate(record.layers):
        _check_layer(layer, has_shared=number in shared)


def _counts(record: Record) -> list[int]:
    """Return the number of chunks of each layer; the last is the value, cut as the record lists."""
    value = [len(record.chunks)] if record.layers else []
    try:
        return [chunk_count(layer.dtype, layer.shape) for layer in record.layers[:-1]] + value
    except ValueError as error:
        raise CorruptError(f"a malformed @tensor: {error}") from error


def _check_layer(layer: Layer, *, has_shared: bool) -> None:
    if (layer.base is None) != (layer.codec == _ALONE):
        raise CorruptError(f"a layer of codec {layer.codec} with the wrong kind of base")
    if has_shared != (layer.codec in _SHARING):
        raise CorruptError(f"a layer of codec {layer.codec} has shared bytes, or lacks them")
