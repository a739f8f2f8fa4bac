"""HDF5, including Keras's ``.h5`` and ``.weights.h5``: contiguous datasets are tensors.

This follows the HDF5 File Format Specification for files that h5py writes by default: superblock 0 to 3,
object headers 1 and 2, groups as symbol tables or as link messages.  Each chunk of an unfiltered chunked
dataset is a tensor.  Filtered and compact datasets, texts of variable length and the structure are skeleton.
A file is malformed, and so opaque, if that is the larger part, or if it has groups in a fractal heap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from theta.errors import FormatError
from theta.formats.hdf5 import hdf5_chunks
from theta.formats.hdf5.hdf5_chunks import Chunked
from theta.formats.layout import (
    MAX_NAME_BYTES,
    MAX_RANK,
    MAX_SIZE,
    Layout,
    Source,
    Tensor,
    View,
    contiguous,
)

NAME: Final = "hdf5"
MAGIC: Final = b"\x89HDF\r\n\x1a\n"
MAX_OBJECTS: Final = 1_000_000
MAX_DEPTH: Final = 100
_MAX_HEADER: Final = 16 * 2**20
_NAME_ALLOWANCE: Final = 16 * 2**20
_UNDEFINED: Final = 2**64 - 1

_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _LAYOUT, _CONTINUATION, _SYMBOL_TABLE = 1, 2, 3, 6, 8, 16, 17
_FILTERS: Final = 11
_SOFT_LINK: Final = 2
# Classes of types whose elements are addresses in the file.
_REFERENCE, _VARIABLE = 7, 9
_FLOATS: Final = {(2, 5, 10): "f16", (2, 8, 7): "bf16", (4, 8, 23): "f32", (8, 11, 52): "f64"}


@dataclass(frozen=True, slots=True)
class _Dataset:
    """A contiguous dataset; ``dtype`` is ``bytes`` for unsupported types, ``width`` of them an element."""

    dtype: str
    width: int
    shape: tuple[int, ...]
    address: int
    length: int

    def tensor(self, name: str) -> Tensor:
        shape = (*self.shape, self.width) if self.dtype == "bytes" else self.shape
        return Tensor(name, self.dtype, shape, self.address, self.length)


def detect(source: Source) -> bool:
    """Return whether the file starts with HDF5's signature, without a user block."""
    return source.size >= 48 and source.read(0, 8) == MAGIC


def scan(source: Source) -> Layout:
    """Return a layout of the datasets, named by their paths; a second path to a dataset is a view."""
    walker = _Walker(source)
    walker.group("", _root(source), 0)
    tensors = sorted(walker.tensors, key=lambda tensor: (tensor.offset, tensor.length))
    covered = sum(tensor.length for tensor in tensors)
    if not tensors or (covered * 2 < source.size and source.size > 2**20):
        raise FormatError("hdf5: most of the data is compressed, or not there")
    return Layout(NAME, source.size, tuple(tensors), views=tuple(walker.views))


def _root(source: Source) -> int:
    """Return the address of the root group's object header."""
    head = source.read(0, 16)
    version = head[8]
    offsets, lengths = (head[13], head[14]) if version < 2 else (head[9], head[10])
    if version > 3 or (offsets, lengths) != (8, 8):
        raise FormatError(f"hdf5: superblock {version} with addresses of {offsets} bytes is not known")
    base_at = 24 if version == 0 else 28 if version == 1 else 12
    root_at = base_at + 40 if version < 2 else 36
    if _number(source, base_at) != 0:
        raise FormatError("hdf5: a user block")
    return _number(source, root_at)


def _number(source: Source, at: int, width: int = 8) -> int:
    return int.from_bytes(_read(source, at, width), "little")


def _read(source: Source, at: int, length: int) -> bytes:
    if not 0 <= at <= source.size - length:
        raise FormatError("hdf5: an address outside the file")
    return source.read(at, length)


class _Walker:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.tensors: list[Tensor] = []
        self.views: list[View] = []
        self._seen: dict[int, Tensor | None] = {}
        self._nodes: set[int] = set()
        self._allowance = source.size + _NAME_ALLOWANCE

    def group(self, path: str, address: int, depth: int) -> None:
        """Visit the object at ``address`` and the members of a group, each object once."""
        self._allowance -= len(path) + 200
        if depth > MAX_DEPTH or len(self._seen) > MAX_OBJECTS or self._allowance < 0:
            raise FormatError("hdf5: too many objects, or nested too deeply")
        if len(path) * 4 > MAX_NAME_BYTES:
            raise FormatError("hdf5: a path is too long")
        if address in self._seen:
            self._again(path, self._seen[address])
            return
        self._seen[address] = None
        messages = list(_messages(self.source, address))
        dataset = _dataset(messages)
        if dataset is not None and path:
            self._seen[address] = dataset.tensor(path)
            self.tensors.append(dataset.tensor(path))
            return
        if path:
            self._chunks(path, messages)
        for name, child in self._links(messages):
            self.group(f"{path}/{name}" if path else name, child, depth + 1)

    def _chunks(self, path: str, messages: list[tuple[int, bytes]]) -> None:
        """Collect the chunks of a dataset as tensors, named by their start index."""
        found = _chunked(messages)
        if found is None:
            return
        chunked, dtype, width = found
        for chunk in chunked.chunks(self.source):
            name = f"{path}[{','.join(map(str, chunk.start))}]"
            self._allowance -= len(name) + 200
            if self._allowance < 0 or len(self.tensors) >= MAX_OBJECTS:
                raise FormatError("hdf5: too many chunks")
            part = _Dataset(dtype, width, chunked.shape, chunk.address, chunked.length)
            self.tensors.append(part.tensor(name))

    def _again(self, path: str, tensor: Tensor | None) -> None:
        if tensor is not None and tensor.dtype != "bytes":
            strides = contiguous(tensor.shape)
            self.views.append(View(path, tensor.name, tensor.dtype, tensor.shape, strides))

    def _links(self, messages: list[tuple[int, bytes]]) -> Iterator[tuple[str, int]]:
        for kind, body in messages:
            if kind == _SYMBOL_TABLE and len(body) >= 16:
                tree, heap = struct.unpack_from("<2Q", body)
                yield from self._symbols(tree, _heap(self.source, heap), 0)
            elif kind == _LINK:
                link = _hard_link(body)
                if link is not None:
                    yield link
            elif kind == _LINK_INFO and _is_dense(body):
                raise FormatError("hdf5: a group in a fractal heap")

    def _symbols(self, address: int, names: bytes, depth: int) -> Iterator[tuple[str, int]]:
        """Yield name and address of the entries of a group's version 1 B-tree; ``names`` is its heap."""
        if address in self._nodes or depth > MAX_DEPTH:
            raise FormatError("hdf5: a B-tree with a cycle")
        self._nodes.add(address)
        head = _read(self.source, address, 8)
        if head[:4] == b"SNOD":
            count = int.from_bytes(head[6:8], "little")
            entries = _read(self.source, address + 8, 40 * count)
            for at in range(0, len(entries), 40):
                name, child, cached = struct.unpack_from("<2QI", entries, at)
                if cached != _SOFT_LINK:
                    yield _text(names, name), child
        elif head[:5] == b"TREE\0":
            count = int.from_bytes(head[6:8], "little")
            children = _read(self.source, address + 24, 16 * count)
            for at in range(0, len(children), 16):
                yield from self._symbols(struct.unpack_from("<Q", children, at + 8)[0], names, depth + 1)
        else:
            raise FormatError("hdf5: a group's B-tree is malformed")


def _heap(source: Source, address: int) -> bytes:
    """Return the data segment of a local heap."""
    magic, size, _, segment = struct.unpack("<8s3Q", _read(source, address, 32))
    if magic[:4] != b"HEAP" or size > _MAX_HEADER:
        raise FormatError("hdf5: a local heap is malformed")
    return _read(source, segment, size)


def _text(names: bytes, at: int) -> str:
    end = names.find(b"\0", at)
    if at >= len(names) or end < 0:
        raise FormatError("hdf5: a name outside its heap")
    return _decode(names[at:end])


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError("hdf5: a name is not valid UTF-8") from error


def _messages(source: Source, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield the header messages (type, content) of the object at ``address``, with all continuations."""
    head = _read(source, address, 16)
    if head[:4] == b"OHDR":
        flags = head[5]
        at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        blocks = [(at + width, _number(source, at, width))]
        header = 6 if flags & 4 else 4
    elif head[0] == 1:
        blocks = [(address + 16, int.from_bytes(head[8:12], "little"))]
        header = 8
    else:
        raise FormatError("hdf5: no object header where there should be one")
    total = 0
    seen: set[int] = set()
    while blocks:
        start, length = blocks.pop(0)
        total += length
        if total > _MAX_HEADER or start in seen:
            raise FormatError("hdf5: an object header is too long, or has a cycle")
        seen.add(start)
        for kind, body in _split(_read(source, start, length), header):
            if kind == _CONTINUATION and len(body) >= 16:
                offset, size = struct.unpack_from("<2Q", body)
                # Continuations of version 2 have a signature and a checksum around their messages.
                blocks.append((offset, size) if header == 8 else (offset + 4, max(0, size - 8)))
            else:
                yield kind, body


def _split(block: bytes, header: int) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + header <= len(block):
        if header == 8:
            kind, size = struct.unpack_from("<HH", block, at)
        else:
            kind, size = struct.unpack_from("<BH", block, at)
        at += header
        if at + size > len(block):
            raise FormatError("hdf5: a header message is truncated")
        yield kind, block[at : at + size]
        at += size


def _hard_link(body: bytes) -> tuple[str, int] | None:
    """Return name and address of a link message; None for soft and external links."""
    if len(body) < 4 or body[0] != 1:
        raise FormatError("hdf5: a link of an unknown version")
    flags = body[1]
    kind = body[2] if flags & 8 else 0
    at = 2 + (1 if flags & 8 else 0) + (8 if flags & 4 else 0) + (1 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    length = int.from_bytes(body[at : at + width], "little")
    at += width
    if at + length + 8 > len(body):
        if kind == 0:
            raise FormatError("hdf5: a link is truncated")
        return None
    address: int = struct.unpack_from("<Q", body, at + length)[0]
    return (_decode(body[at : at + length]), address) if kind == 0 else None


def _is_dense(body: bytes) -> bool:
    """Return whether a link info message points to a fractal heap."""
    at = 10 if len(body) > 1 and body[1] & 1 else 2
    return len(body) >= at + 8 and struct.unpack_from("<Q", body, at)[0] != _UNDEFINED


def _dataset(messages: list[tuple[int, bytes]]) -> _Dataset | None:
    """Return the dataset that these messages describe; None unless it is contiguous, without references."""
    bodies = dict(reversed(messages))
    if _LAYOUT not in bodies or _DATASPACE not in bodies or _DATATYPE not in bodies:
        return None
    layout = bodies[_LAYOUT]
    if len(layout) < 18 or layout[0] not in (3, 4) or layout[1] != 1:
        return None
    address, length = struct.unpack_from("<2Q", layout, 2)
    shape, kind = _shape(bodies[_DATASPACE]), _kind(bodies[_DATATYPE])
    if address == _UNDEFINED or shape is None or kind is None:
        return None
    dtype, width = kind
    total = width
    for dimension in shape:
        total *= dimension
        if total > MAX_SIZE:
            raise FormatError("hdf5: an impossible shape")
    return _Dataset(dtype, width, shape, address, length) if total == length else None


def _chunked(messages: list[tuple[int, bytes]]) -> tuple[Chunked, str, int] | None:
    """Return the chunks, dtype and width of the dataset; None unless it is chunked without filters."""
    bodies = dict(reversed(messages))
    if _LAYOUT not in bodies or _DATASPACE not in bodies or _DATATYPE not in bodies or _FILTERS in bodies:
        return None
    shape, kind = _shape(bodies[_DATASPACE]), _kind(bodies[_DATATYPE])
    if shape is None or kind is None:
        return None
    chunked = hdf5_chunks.read_layout(bodies[_LAYOUT], len(shape), kind[1])
    return None if chunked is None else (chunked, *kind)


def _shape(body: bytes) -> tuple[int, ...] | None:
    if len(body) < 4 or body[0] not in (1, 2) or (body[0] == 2 and body[3] == 2):
        return None
    rank, start = body[1], 8 if body[0] == 1 else 4
    if rank >= MAX_RANK or len(body) < start + 8 * rank:
        raise FormatError(f"hdf5: {rank} dimensions")
    return struct.unpack_from(f"<{rank}Q", body, start)


def _kind(body: bytes) -> tuple[str, int] | None:
    """Return the dtype and the bytes of an element; None for types that are addresses in the file."""
    if len(body) < 8:
        return None
    kind, width = body[0] & 0x0F, int.from_bytes(body[4:8], "little")
    if kind in (_REFERENCE, _VARIABLE) or not width:
        return None
    big = body[1] & 1 and width > 1
    if kind == 0 and width in (1, 2, 4, 8) and not big:
        return ("i" if body[1] & 8 else "u") + str(8 * width), width
    if kind == 1 and len(body) >= 20 and not big and not body[1] & 0x40:
        return _FLOATS.get((width, body[13], body[15]), "bytes"), width
    return "bytes", width
