"""Records as theta writes them, read much faster than as JSON.

This takes the text that :meth:`Record.data` makes of a tensor of a few chunks.  It leaves anything else to
:func:`theta.store.format.tensor_tree.parse`, so that one place refuses what is malformed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from theta.errors import MALFORMED
from theta.store.format import tensor_tree
from theta.store.format.tensor_tree import Chunk, Layer, Record

_LONGEST: Final = 4096
"""Bytes of the longest record that is taken."""
_MOST_CHUNKS: Final = 64
"""More chunks have no room in such a record."""
_BEFORE_CHUNKS: Final = b',\n"chunks": [\n'
_CHUNK: Final = rb'\[([1-9][0-9]{0,7}), "([0-9a-f]{64})"\]'
_FILE: Final = rb'"([0-9a-z.]{1,32})": "([0-9a-f]{40}(?:[0-9a-f]{24})?)"'


def _rows(row: bytes) -> bytes:
    """Return the pattern of rows that commas separate."""
    return rb"(?:%s,\n)*%s" % (row, row)


_TAIL: Final = re.compile(
    _BEFORE_CHUNKS.replace(b"[", rb"\[")
    + _rows(_CHUNK)
    + rb'\n\],\n"files": \{\n'
    + _rows(_FILE)
    + rb"\n\}\n\}\n"
)
_CHUNKS: Final = re.compile(_CHUNK)
_FILES: Final = re.compile(_FILE)
_Head = tuple[str, tuple[int, ...], tuple[Layer, ...], list[int]]


def read(data: bytes) -> Record:
    """Return the record ``data``; raises as :func:`theta.store.format.tensor_tree.parse`."""
    return _quick(data) or tensor_tree.parse(data)


def _quick(data: bytes) -> Record | None:
    """Return the record ``data``; None if it is not one that theta writes of a few chunks."""
    at = data.find(_BEFORE_CHUNKS)
    if len(data) > _LONGEST or b"-0" in data or at < 0 or _TAIL.fullmatch(data, at) is None:
        return None
    try:
        dtype, shape, layers, lengths = _head(data[:at])
    except MALFORMED:
        return None
    chunks = tuple(
        Chunk(int(length), bytes.fromhex(digest.decode())) for length, digest in _CHUNKS.findall(data, at)
    )
    rows = _FILES.findall(data, at)
    files = {name.decode(): oid.decode() for name, oid in rows}
    if [chunk.length for chunk in chunks] != lengths or len(files) != len(rows):
        return None
    return Record(dtype, shape, layers, chunks, files)


@lru_cache(1024)
def _head(text: bytes) -> _Head:
    """Return what stands before the chunks, and the lengths that these must have.

    The tensors of a model have few heads, and keep them from version to version.
    """
    dtype, shape, layers = tensor_tree.head_of(text.decode("ascii") + "}")
    if dtype == "bytes" or tensor_tree.chunk_count(dtype, shape) > _MOST_CHUNKS:
        raise ValueError("chunks of another kind")
    return dtype, shape, layers, tensor_tree.chunk_lengths(dtype, shape)
