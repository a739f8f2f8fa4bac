"""GGUF versions 2 and 3: llama.cpp's container, with quantised blocks.

The file has a magic, a version, counts, key-value pairs, tensor infos, padding, and the tensors at multiples
of ``general.alignment``.  It lists the fastest dimension first, so a shape here is reversed.  A quantised
tensor has dtype bytes, and its last dimension is the bytes of one row, as in the ``gguf`` package.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from theta.errors import FormatError
from theta.formats.cursor import Cursor
from theta.formats.layout import MAX_SIZE, Layout, Source, Tensor, TensorSpec, clip, nbytes
from theta.formats.plan import Builder, Plan

NAME: Final = "gguf"
MAGIC: Final = b"GGUF"
MAX_KEYS: Final = 100_000
# llama.cpp stacks experts, so the largest models have a few thousand tensors.
MAX_TENSORS: Final = 100_000
MAX_KEY: Final = 65_535
MAX_NAME: Final = 65_536
MAX_DIMENSIONS: Final = 8
MAX_ALIGNMENT: Final = 2**20
_ALIGNMENT_KEY: Final = b"general.alignment"

_PLAIN: Final = {0: "f32", 1: "f16", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 30: "bf16"}
DTYPES: Final = frozenset(_PLAIN.values())
# ggml type -> (elements of a block, bytes of a block).
# fmt: off
_BLOCKS: Final = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}
# fmt: on
_WIDTHS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_U32, _TEXT, _ARRAY = 4, 8, 9


def detect(source: Source) -> bool:
    """Return whether the file starts with GGUF's magic."""
    return source.size >= 24 and source.read(0, 4) == MAGIC


def scan(source: Source) -> Layout:
    """Return the layout; raises ``FormatError`` for other versions and malformed files.

    A tensor of an unknown ggml type is bytes up to the next tensor.
    """
    order: Literal["little", "big"] = "little"
    if int.from_bytes(source.read(4, 4), "little") & 0xFFFF == 0:
        order = "big"
    cursor = Cursor(source, 4, source.size, NAME, order)
    version = cursor.number(4)
    if version not in (2, 3):
        raise FormatError(f"gguf: version {version} is not known")
    tensor_count, key_count = cursor.number(8), cursor.number(8)
    # An info has at least 24 bytes, a pair 13: impossible counts are errors before any loop.
    if tensor_count > min(MAX_TENSORS, cursor.remaining // 24) or key_count > MAX_KEYS:
        raise FormatError(f"gguf: {tensor_count} tensors and {key_count} keys are impossible")
    alignment = _read_pairs(cursor, key_count)
    infos = [_Info(cursor) for _ in range(tensor_count)]
    start = cursor.position + -cursor.position % alignment
    layout = Layout(NAME, source.size, _place(infos, start, alignment, source.size, order))
    layout.validate()
    return layout


class _Info:
    """One tensor info: name, dimensions slowest first, ggml type, offset in the data."""

    __slots__ = ("kind", "name", "offset", "shape")

    def __init__(self, cursor: Cursor) -> None:
        length = cursor.number(8)
        if length > MAX_NAME:
            raise FormatError("gguf: a tensor name is too long")
        try:
            self.name = cursor.take(length).decode()
        except UnicodeDecodeError as error:
            raise FormatError("gguf: a tensor name is not valid UTF-8") from error
        rank = cursor.number(4)
        if rank > MAX_DIMENSIONS:
            raise FormatError(f"gguf: tensor {clip(self.name)} has {rank} dimensions")
        self.shape = tuple(reversed([cursor.number(8) for _ in range(rank)]))
        self.kind = cursor.number(4)
        self.offset = cursor.number(8)

    def extent(self, offset: int, room: int, big_endian: bool) -> Tensor:
        """Return the tensor at ``offset`` of the file, with ``room`` bytes before the next."""
        if self.kind not in _BLOCKS:
            return Tensor(self.name, "bytes", (room,), offset, room)
        per_block, block = _BLOCKS[self.kind]
        length = block
        for dimension in self.shape:
            length *= dimension
            if length > MAX_SIZE * per_block:
                raise FormatError(f"gguf: tensor {clip(self.name)} has an impossible shape")
        if per_block == 1:
            if big_endian and block > 1:
                return Tensor(self.name, "bytes", (*self.shape, block), offset, length)
            return Tensor(self.name, _PLAIN[self.kind], self.shape, offset, length)
        if not self.shape or self.shape[-1] % per_block:
            raise FormatError(f"gguf: a row of tensor {clip(self.name)} does not fill its blocks")
        row = self.shape[-1] // per_block * block
        return Tensor(self.name, "bytes", (*self.shape[:-1], row), offset, length // per_block)


def _place(
    infos: list[_Info], start: int, alignment: int, size: int, order: Literal["little", "big"]
) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    infos = sorted(infos, key=lambda info: info.offset)
    for number, info in enumerate(infos):
        if info.offset % alignment:
            raise FormatError(f"gguf: tensor {clip(info.name)} is not aligned")
        if start + info.offset > size:
            raise FormatError(f"gguf: tensor {clip(info.name)} begins behind the end of the file")
        following = start + infos[number + 1].offset if number + 1 < len(infos) else size
        offset = start + info.offset
        tensors.append(info.extent(offset, max(0, min(following, size) - offset), order == "big"))
    # Tensors without bytes may share an offset with the one that follows them.
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.length))
    return tuple(tensors)


def _read_pairs(cursor: Cursor, count: int) -> int:
    """Skip the key-value pairs; return their alignment, or 32."""
    keys: set[bytes] = set()
    alignment = 32
    for _ in range(count):
        length = cursor.number(8)
        if not 0 < length <= MAX_KEY:
            raise FormatError(f"gguf: a key of {length} bytes")
        key = cursor.take(length)
        if key in keys:
            raise FormatError(f"gguf: the key {clip(key.decode('utf-8', 'replace'))} is there twice")
        keys.add(key)
        kind = cursor.number(4)
        if key == _ALIGNMENT_KEY:
            alignment = _alignment(cursor, kind)
        else:
            _skip_value(cursor, kind, 0)
    return alignment


def _alignment(cursor: Cursor, kind: int) -> int:
    alignment = cursor.number(4) if kind == _U32 else 0
    if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise FormatError(f"gguf: the alignment {alignment} is no power of two, or too large")
    return alignment


def _skip_value(cursor: Cursor, kind: int, depth: int) -> None:
    if kind in _WIDTHS:
        cursor.skip(_WIDTHS[kind])
    elif kind == _TEXT:
        cursor.skip(cursor.number(8))
    elif kind == _ARRAY and depth < 4:
        _skip_array(cursor, depth + 1)
    else:
        raise FormatError(f"gguf: a value of the unknown type {kind}")


def _skip_array(cursor: Cursor, depth: int) -> None:
    kind, count = cursor.number(4), cursor.number(8)
    if kind in _WIDTHS:
        cursor.skip(_WIDTHS[kind] * count)
        return
    # A text has at least 8 bytes, an array 12.
    if count > cursor.remaining // 8:
        raise FormatError(f"gguf: an array of {count} values in {cursor.remaining} bytes")
    for _ in range(count):
        _skip_value(cursor, kind, depth)


def plan(specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None) -> Plan:
    """Plan a new file of version 3 with its tensors in the order of ``specs`` and ``metadata`` as texts.

    Raises ``FormatError`` for dtypes without an unquantised ggml type.
    """
    types = {dtype: kind for kind, dtype in _PLAIN.items()}
    pairs = {"general.architecture": "unknown"} | dict(sorted((metadata or {}).items()))
    head = bytearray(MAGIC + struct.pack("<IQQ", 3, len(specs), len(pairs)))
    for key, value in pairs.items():
        head += _packed(key, MAX_KEY) + struct.pack("<I", _TEXT) + _packed(value, MAX_SIZE)
    offset = 0
    for spec in specs:
        if spec.dtype not in types or len(spec.shape) > 4:
            raise FormatError(
                f"gguf cannot hold {spec.dtype} of {len(spec.shape)} dimensions: {clip(spec.name)}"
            )
        length = nbytes(spec.name, spec.dtype, spec.shape)
        head += _packed(spec.name, MAX_NAME) + struct.pack("<I", len(spec.shape))
        head += struct.pack(f"<{len(spec.shape)}Q", *reversed(spec.shape))
        head += struct.pack("<IQ", types[spec.dtype], offset)
        offset += length + -length % 32
    builder = Builder()
    builder.literal(bytes(head))
    for spec in specs:
        builder.literal(bytes(-builder.size % 32))
        builder.tensor(spec)
    builder.literal(bytes(-builder.size % 32))
    return builder.plan(NAME)


def _packed(text: str, limit: int) -> bytes:
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise FormatError("gguf: a name or a value is not valid unicode") from error
    if (not raw and limit == MAX_KEY) or len(raw) > limit:
        raise FormatError("gguf: a key or a name is empty, or too long")
    return struct.pack("<Q", len(raw)) + raw
