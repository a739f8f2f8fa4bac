"""TensorFlow's checkpoints: ``NAME.index`` locates the tensors in ``NAME.data-00000-of-00001``.

The index is an uncompressed LevelDB table (https://github.com/google/leveldb/blob/main/doc/table_format.md)
from names to ``BundleEntryProto`` (``tensorflow/core/protobuf/tensor_bundle.proto``).  Each entry has the
CRC-32C of its tensor.  These four bytes are the tensors of the index, and the checksums of the table's blocks
are derived from them.  So branches that trained different variables merge in both files.

A data file has no structure of its own; it is read by the index beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from theta.dtypes import DTYPES
from theta.errors import FormatError, ThetaError
from theta.formats.cursor import Cursor
from theta.formats.fields import Derived
from theta.formats.layout import (
    MAX_RANK,
    MAX_SIZE,
    BytesSource,
    Layout,
    Placed,
    Source,
    Tensor,
    clip,
)
from theta.formats.onnx.protobuf import fields, varint

NAME: Final = "tensorflow"
INDEX_NAME: Final = "tensorflow-index"
MAGIC: Final = bytes.fromhex("57fb808b247547db")
MAX_INDEX: Final = 256 * 2**20
MAX_BLOCK: Final = 8 * 2**20
MAX_ENTRIES: Final = 1_000_000
_FOOTER: Final = 48
_TRAILER: Final = 5
_DATA_RE: Final = re.compile(r"(?P<stem>.+)\.data-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})")
# fmt: off
_DTYPES: Final = {
    1: "f32", 2: "f64", 3: "i32", 4: "u8", 5: "i16", 6: "i8", 8: "c64", 9: "i64", 10: "bool", 14: "bf16",
    17: "u16", 19: "f16", 22: "u32", 23: "u64", 24: "f8_e5m2", 25: "f8_e4m3",
}
# fmt: on


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """The entry of a tensor; ``crc`` is the offset of its checksum in the index, -1 without one."""

    name: str
    kind: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class BundleIndex:
    """The content of an index; ``blocks`` are ``(offset, length)`` of its blocks without trailers."""

    entries: tuple[BundleEntry, ...]
    shards: int
    big_endian: bool
    blocks: tuple[tuple[int, int], ...]


class _IndexReader:
    """The reader of ``.index`` files."""

    NAME = INDEX_NAME

    def detect(self, source: Source) -> bool:
        """Return whether the file ends with LevelDB's magic."""
        return source.size >= _FOOTER and source.read(source.size - 8, 8) == MAGIC

    def scan(self, source: Source) -> Layout:
        """Return a layout of the tensors' checksums; those of the blocks are derived."""
        index = read_index(source)
        found = sorted((entry for entry in index.entries if entry.crc >= 0), key=lambda entry: entry.crc)
        tensors = tuple(Tensor(entry.name, "bytes", (4,), entry.crc, 4) for entry in found)
        derived = tuple(
            Derived("crc32c-masked", start + length + 1, 4, ((start, length + 1),))
            for start, length in index.blocks
        )
        return Layout(INDEX_NAME, source.size, tensors, derived)


index_reader: Final = _IndexReader()


def detect(source: Source) -> bool:
    """Return whether the file has the name of a data file, and a valid index beside it."""
    return _index_of(source) is not None


def scan(source: Source) -> Layout:
    """Return a layout of the tensors of this shard; raises ``FormatError`` if the index has none."""
    found = _index_of(source)
    if found is None:
        raise FormatError("tensorflow: no index")
    index, number = found
    tensors = [_tensor(entry, index.big_endian) for entry in index.entries if entry.shard == number]
    tensors = [tensor for tensor in tensors if tensor.length]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.length))
    if not tensors:
        raise FormatError("tensorflow: the index has no tensors in this file")
    return Layout(NAME, source.size, tuple(tensors))


def read_index(source: Source) -> BundleIndex:
    """Read the table in ``source``; raises ``FormatError`` for compressed blocks and malformed tables."""
    if source.size > MAX_INDEX:
        raise FormatError(f"tensorflow: an index of {source.size} bytes")
    footer = Cursor(source, source.size - _FOOTER, source.size, "tensorflow")
    meta, top = _handle(footer), _handle(footer)
    blocks = [top, *(_handle(value) for _, value in _block(source, top))]
    blocks.insert(0, meta)
    for start, length in blocks:
        if length > MAX_BLOCK or start + length + _TRAILER > source.size - _FOOTER:
            raise FormatError("tensorflow: a block outside the index, or too large")
        if source.read(start + length, 1) != b"\0":
            raise FormatError("tensorflow: a compressed block")
    entries: list[BundleEntry] = []
    shards, big = 0, False
    for block in blocks[2:]:
        for key, value in _block(source, block):
            if not key:
                shards, big = _header(value)
            elif len(entries) >= MAX_ENTRIES:
                raise FormatError("tensorflow: too many tensors")
            else:
                entries.append(_entry(_text(key), value))
    return BundleIndex(tuple(entries), shards, big, tuple(dict.fromkeys(blocks)))


def _index_of(source: Source) -> tuple[BundleIndex, int] | None:
    if not isinstance(source, Placed) or (match := _DATA_RE.fullmatch(source.name)) is None:
        return None
    try:
        data = source.sibling(match["stem"] + ".index")
        if data is None or not index_reader.detect(BytesSource(data)):
            return None
        index = read_index(BytesSource(data))
    except ThetaError:
        return None
    return (index, int(match["number"])) if index.shards == int(match["count"]) else None


def _tensor(entry: BundleEntry, big_endian: bool) -> Tensor:
    dtype = _DTYPES.get(entry.kind, "bytes")
    itemsize = DTYPES[dtype].itemsize
    count = itemsize
    for dimension in entry.shape:
        count *= dimension
    if dtype == "bytes" or count != entry.size or (big_endian and itemsize > 1):
        return Tensor(entry.name, "bytes", (entry.size,), entry.offset, entry.size)
    return Tensor(entry.name, dtype, entry.shape, entry.offset, entry.size)


def _text(key: bytes) -> str:
    """Decode a key; those of slices are binary."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return "slice." + key.hex()


def _size(cursor: Cursor) -> int:
    return _checked(varint(cursor))


def _checked(value: int) -> int:
    if value > MAX_SIZE:
        raise FormatError("tensorflow: an impossible number")
    return value


def _handle(cursor: Cursor) -> tuple[int, int]:
    return _size(cursor), _size(cursor)


def _block(source: Source, block: tuple[int, int]) -> Iterator[tuple[bytes, Cursor]]:
    """Yield key and value of each entry of a block; a key shares a prefix with the one before it."""
    start, length = block
    if length < 4 or length > MAX_BLOCK or start + length > source.size:
        raise FormatError("tensorflow: a block outside the index, or too large")
    restarts = int.from_bytes(source.read(start + length - 4, 4), "little")
    end = start + length - 4 - 4 * restarts
    cursor = Cursor(source, start, end, "tensorflow") if end >= start else None
    if cursor is None:
        raise FormatError("tensorflow: a block with too many restarts")
    key = b""
    while cursor.remaining:
        shared, fresh, size = _size(cursor), _size(cursor), _size(cursor)
        if shared > len(key) or shared + fresh > 64 * 1024:
            raise FormatError("tensorflow: a key that cannot be put together")
        key = key[:shared] + cursor.take(fresh)
        at = cursor.skip(size)
        yield key, Cursor(source, at, at + size, "tensorflow")


def _fields(cursor: Cursor) -> Iterator[tuple[int, int, int]]:
    """Yield (number, value, 0) or (number, offset, length) of each field of a message."""
    return ((field.number, _checked(field.value), field.length) for field in fields(cursor))


def _header(value: Cursor) -> tuple[int, bool]:
    found = {number: item for number, item, _ in _fields(value)}
    return found.get(1, 0), found.get(2, 0) == 1


def _entry(name: str, value: Cursor) -> BundleEntry:
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}
    shape: tuple[int, ...] = ()
    crc = -1
    for number, item, length in _fields(value):
        if number == 2:
            shape = _shape(value.part(item, length))
        elif number == 6 and length == 4:
            crc = item
        elif number in numbers and not length:
            numbers[number] = item
    if len(shape) > MAX_RANK:
        raise FormatError(f"tensorflow: tensor {clip(name)} has {len(shape)} dimensions")
    return BundleEntry(name, numbers[1], shape, numbers[3], numbers[4], numbers[5], crc)


def _shape(message: Cursor) -> tuple[int, ...]:
    """Return the sizes in a TensorShapeProto."""
    dims: list[int] = []
    for number, item, length in _fields(message):
        if number == 2:
            sizes = [size for field, size, _ in _fields(message.part(item, length)) if field == 1]
            dims.append(sizes[-1] if sizes else 0)
    return tuple(dims)
