"""The rules that tie the layers of a tensor to the files of its tree (format.md, section 4)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from theta.errors import CorruptError
from theta.store.format.tensor_tree import SHARED, Layer, Record, chunk_count, place_of

_ALONE: Final = "dense/1"
_SHARING: Final = ("scaled/1", "rows/1", "lowrank/1")
"""The codecs whose chunks share a file."""

_FEW: Final = 16
"""The most files of a tensor whose rules are remembered."""


def check(record: Record) -> None:
    """Raise :class:`CorruptError` for files that belong to no layer, and for layers that lack theirs.

    The codecs are such as this version knows.
    """
    names = tuple(record.files)
    (_check_few if len(names) <= _FEW else _check)(record.layers, len(record.chunks), names)


def _check(layers: tuple[Layer, ...], chunks: int, names: tuple[str, ...]) -> None:
    counts = _counts(layers, chunks)
    shared = set[int]()
    for name in names:
        number, chunk = place_of(name)
        if not 0 <= number < len(counts) or chunk >= counts[number]:
            raise CorruptError(f"a tensor has a file {name[:40]!r}, which belongs to none of its layers")
        if chunk == SHARED:
            shared.add(number)
    for number, layer in enumerate(layers):
        _check_layer(layer, has_shared=number in shared)


_check_few: Final = lru_cache(1024)(_check)
"""The same check, once for tensors with the same layers and names, which most of a model have."""


def _counts(layers: tuple[Layer, ...], chunks: int) -> list[int]:
    """Return the number of chunks of each layer; the last is the value, cut as the record lists."""
    value = [chunks] if layers else []
    try:
        return [chunk_count(layer.dtype, layer.shape) for layer in layers[:-1]] + value
    except ValueError as error:
        raise CorruptError(f"a malformed @tensor: {error}") from error


def _check_layer(layer: Layer, *, has_shared: bool) -> None:
    if (layer.base is None) != (layer.codec == _ALONE):
        raise CorruptError(f"a layer of codec {layer.codec} with the wrong kind of base")
    if has_shared != (layer.codec in _SHARING):
        raise CorruptError(f"a layer of codec {layer.codec} has shared bytes, or lacks them")
