"""ONNX: a protobuf message whose initializers hold their values as raw bytes or packed floats.

Only the wire format is read (https://protobuf.dev/programming-guides/encoding), with the field numbers of
``onnx.proto``.  Values written one varint at a time, in nested graphs or in other files are skeleton.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from theta.dtypes import DTYPES
from theta.errors import FormatError
from theta.formats.cursor import Cursor
from theta.formats.layout import MAX_RANK, MAX_SIZE, Layout, Source, Tensor

NAME: Final = "onnx"
MAX_INITIALIZERS: Final = 100_000
MAX_NODE_FIELDS: Final = 1_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Field number -> wire type of ModelProto.
_MODEL: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR = 2, 4, 5, 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _TENSOR_NAME, _RAW_DATA, _DOUBLE_DATA = 1, 2, 4, 8, 9, 10
# fmt: off
_DTYPES: Final = {
    1: "f32", 2: "u8", 3: "i8", 4: "u16", 5: "i16", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 11: "f64",
    12: "u32", 13: "u64", 14: "c64", 16: "bf16", 17: "f8_e4m3", 18: "f8_e4m3fnuz", 19: "f8_e5m2",
    20: "f8_e5m2fnuz", 24: "f8_e8m0",
}
# fmt: on
_PACKED: Final = {_FLOAT_DATA: (1, 14), _DOUBLE_DATA: (11,)}


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a message: for bytes ``value`` is their offset and ``length`` counts them."""

    number: int
    wire: int
    value: int
    length: int


def detect(source: Source) -> bool:
    """Whether the file is exactly one ModelProto with one graph, judged by its outermost fields."""
    if source.size < 8 or source.read(0, 1)[0] >> 3 not in _MODEL:
        return False
    graphs = 0
    try:
        for count, field in enumerate(_fields(source, 0, source.size)):
            graphs += field.number == _GRAPH
            if _MODEL.get(field.number) != field.wire or count > 10_000:
                return False
    except FormatError:
        return False
    return graphs == 1


def scan(source: Source) -> Layout:
    """The initializers, and the values of Constant nodes, that lie in one piece; in file order."""
    tensors: dict[str, Tensor] = {}
    for number, (name, field) in enumerate(_values(source)):
        if number >= MAX_INITIALIZERS:
            raise FormatError(f"onnx: more than {MAX_INITIALIZERS} initializers")
        tensor = _tensor(source, field, name)
        if tensor is not None:
            unique = tensor.name if tensor.name and tensor.name not in tensors else f"initializer.{number}"
            if unique in tensors:
                raise FormatError("onnx: two initializers have one name")
            tensors[unique] = Tensor(unique, tensor.dtype, tensor.shape, tensor.offset, tensor.length)
    if not tensors:
        raise FormatError("onnx: no initializers that lie in one piece")
    ordered = sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.length))
    return Layout(NAME, source.size, tuple(ordered))


def _values(source: Source) -> Iterator[tuple[str, _Field]]:
    """Every TensorProto of the graph, with the name to use where it has none itself."""
    for graph in _messages(source, 0, source.size, _GRAPH):
        for field in _fields(source, graph.value, graph.value + graph.length):
            if field.wire != _BYTES:
                continue
            if field.number == _INITIALIZER:
                yield "", field
            elif field.number == _NODE:
                yield from _constants(source, field)


def _constants(source: Source, node: _Field) -> Iterator[tuple[str, _Field]]:
    fields = list(islice(_messages(source, node.value, node.value + node.length, 0), MAX_NODE_FIELDS))
    operators = [_text(source, field) for field in fields if field.number == _NODE_OPERATOR]
    outputs = [_text(source, field) for field in fields if field.number == _NODE_OUTPUT]
    if operators != ["Constant"] or len(outputs) != 1:
        return
    for field in fields:
        if field.number == _NODE_ATTRIBUTE:
            for inner in _messages(source, field.value, field.value + field.length, _ATTRIBUTE_TENSOR):
                yield outputs[0], inner


def _tensor(source: Source, message: _Field, fallback: str) -> Tensor | None:
    """The tensor of a TensorProto; None if its values are not in one piece of it."""
    dims: list[int] = []
    kind, name = 0, ""
    data: list[_Field] = []
    for field in _fields(source, message.value, message.value + message.length):
        if field.number == _DIMS:
            dims.extend(_dimensions(source, field))
        elif field.number == _DATA_TYPE and field.wire == _VARINT:
            kind = field.value
        elif field.number == _TENSOR_NAME and field.wire == _BYTES:
            name = _text(source, field)
        elif field.number in (_RAW_DATA, _FLOAT_DATA, _DOUBLE_DATA) and field.wire == _BYTES:
            data.append(field)
        if len(dims) > MAX_RANK or len(data) > 1:
            return None
    if not data or kind not in _PACKED.get(data[0].number, (kind,)):
        return None
    (values,) = data
    dtype = _DTYPES.get(kind, "bytes")
    tensor = Tensor(name or fallback, dtype, tuple(dims), values.value, values.length)
    if dtype == "bytes" or not _fits(tensor):
        return Tensor(tensor.name, "bytes", (values.length,), values.value, values.length)
    return tensor


def _fits(tensor: Tensor) -> bool:
    total = DTYPES[tensor.dtype].itemsize
    for dimension in tensor.shape:
        total *= dimension
        if total > MAX_SIZE:
            return False
    return total == tensor.length


def _dimensions(source: Source, field: _Field) -> Iterator[int]:
    """The numbers of a repeated field, packed or not; a negative one counts as too large."""
    if field.wire == _VARINT:
        yield field.value
    elif field.wire == _BYTES:
        cursor = Cursor(source, field.value, field.value + min(field.length, 1024), NAME)
        while cursor.remaining:
            yield _varint(cursor)


def _text(source: Source, field: _Field) -> str:
    if field.length > 64 * 1024:
        raise FormatError("onnx: a name is too long")
    return source.read(field.value, field.length).decode("utf-8", "replace")


def _messages(source: Source, start: int, end: int, number: int) -> Iterator[_Field]:
    """The fields ``number`` (0 for any) of a message that are bytes."""
    for field in _fields(source, start, end):
        if field.wire == _BYTES and number in (0, field.number):
            yield field


def _fields(source: Source, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message that is the bytes from ``start`` to ``end``."""
    cursor = Cursor(source, start, end, NAME)
    while cursor.remaining:
        key = _varint(cursor)
        number, wire = key >> 3, key & 7
        if not number:
            raise FormatError("onnx: a field without a number")
        if wire == _VARINT:
            yield _Field(number, wire, _varint(cursor), 0)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
            yield _Field(number, wire, cursor.skip(length), length)
        elif wire == _BYTES:
            length = _varint(cursor)
            yield _Field(number, wire, cursor.skip(length), length)
        else:
            raise FormatError(f"onnx: a field of the unknown wire type {wire}")


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = cursor.take(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise FormatError("onnx: a number of more than ten bytes")
