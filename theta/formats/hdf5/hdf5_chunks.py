"""Locating the chunks of HDF5's datasets by the version 1 B-tree, which h5py writes by default.

Only unfiltered chunks are stored as in memory.  Chunks at the edge of a dataset are padded to full size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from theta.errors import FormatError
from theta.formats.cursor import Cursor
from theta.formats.layout import MAX_SIZE, Source

_CHUNKED: Final = 2
_UNDEFINED: Final = 2**64 - 1
_MAX_NODES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class DatasetChunk:
    """A chunk at ``address`` whose first element has the index ``start`` in the dataset."""

    start: tuple[int, ...]
    address: int


@dataclass(frozen=True, slots=True)
class Chunked:
    """The layout message of a chunked dataset: address of its B-tree, shape and bytes of a chunk."""

    tree: int
    shape: tuple[int, ...]
    length: int

    def chunks(self, source: Source) -> Iterator[DatasetChunk]:
        """Yield all chunks in the file; raises ``FormatError`` for a malformed tree."""
        # Valid nodes do not overlap, so the size of the file limits the number of entries.
        entries = source.size // 24
        stack, seen = [self.tree], {self.tree}
        while stack:
            address = stack.pop()
            for start, size, child, is_leaf in self._node(source, address):
                entries -= 1
                if entries < 0 or len(seen) > _MAX_NODES or (not is_leaf and child in seen):
                    raise FormatError("hdf5: a tree of chunks with a cycle, or too large")
                if not is_leaf:
                    seen.add(child)
                    stack.append(child)
                elif size == self.length:
                    yield DatasetChunk(start, child)

    def _node(self, source: Source, address: int) -> Iterator[tuple[tuple[int, ...], int, int, bool]]:
        """Yield start, size and address of each entry of a node, and whether it is a chunk."""
        cursor = Cursor(source, min(address, source.size), source.size, "hdf5")
        if cursor.take(4) != b"TREE" or cursor.number(1) != 1:
            raise FormatError("hdf5: no tree of chunks where there should be one")
        level, used = cursor.number(1), cursor.number(2)
        cursor.skip(16)
        rank = len(self.shape)
        entry = struct.Struct(f"<2I{rank + 1}QQ")
        for _ in range(used):
            size, _, *start, _, child = entry.unpack(cursor.take(entry.size))
            yield tuple(start), size, child, level == 0


def read_layout(body: bytes, rank: int, width: int) -> Chunked | None:
    """Parse the layout message ``body`` of a dataset of ``rank`` dimensions and elements of ``width`` bytes.

    Returns None unless it is chunked by a version 1 B-tree.
    """
    if len(body) < 11 + 4 * (rank + 1) or body[0] != 3 or body[1] != _CHUNKED or body[2] != rank + 1:
        return None
    (tree,) = struct.unpack_from("<Q", body, 3)
    *shape, element = struct.unpack_from(f"<{rank + 1}I", body, 11)
    length = width
    for dimension in shape:
        length *= dimension
        if length > MAX_SIZE:
            raise FormatError("hdf5: an impossible shape of a chunk")
    if tree == _UNDEFINED or element != width or not length:
        return None
    return Chunked(tree, tuple(shape), length)
