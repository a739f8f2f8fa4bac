"""ONNX: a protobuf message whose initializers have their values as raw bytes or packed floats.

The wire format is read directly (https://protobuf.dev/programming-guides/encoding), with the field numbers
of ``onnx.proto``.  Values encoded as varints, in nested graphs or in other files are skeleton.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from theta.dtypes import DTYPES
from theta.errors import FormatError
from theta.formats.cursor import Cursor
from theta.formats.layout import MAX_RANK, MAX_SIZE, Layout, Source, Tensor
from theta.formats.onnx.protobuf import BYTES, VARINT, WireField, fields, inside, messages, text, varint

NAME: Final = "onnx"
MAX_INITIALIZERS: Final = 100_000
MAX_NODE_FIELDS: Final = 1_000

# Field number -> wire type of ModelProto.
_MODEL: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR = 2, 4, 5, 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _TENSOR_NAME, _RAW_DATA, _DOUBLE_DATA = 1, 2, 4, 8, 9, 10
# fmt: off
KINDS: Final = {
    1: "f32", 2: "u8", 3: "i8", 4: "u16", 5: "i16", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 11: "f64",
    12: "u32", 13: "u64", 14: "c64", 16: "bf16", 17: "f8_e4m3", 18: "f8_e4m3fnuz", 19: "f8_e5m2",
    20: "f8_e5m2fnuz", 24: "f8_e8m0",
}
# fmt: on
_PACKED: Final = {_FLOAT_DATA: (1, 14), _DOUBLE_DATA: (11,)}


def detect(source: Source) -> bool:
    """Return whether the file is one ModelProto with one graph, by its outermost fields."""
    if source.size < 8 or source.read(0, 1)[0] >> 3 not in _MODEL:
        return False
    graphs = 0
    try:
        for count, field in enumerate(fields(Cursor(source, 0, source.size, "protobuf"))):
            graphs += field.number == _GRAPH
            if _MODEL.get(field.number) != field.wire or count > 10_000:
                return False
    except FormatError:
        return False
    return graphs == 1


def scan(source: Source) -> Layout:
    """Return a layout of the contiguous initializers and values of Constant nodes."""
    tensors: dict[str, Tensor] = {}
    for number, (name, field) in enumerate(tensor_messages(source)):
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


def tensor_messages(source: Source) -> Iterator[tuple[str, WireField]]:
    """Yield every TensorProto of the graph, with a name for those that have none."""
    for graph in messages(Cursor(source, 0, source.size, "protobuf"), _GRAPH):
        for field in fields(inside(source, graph)):
            if field.wire != BYTES:
                continue
            if field.number == _INITIALIZER:
                yield "", field
            elif field.number == _NODE:
                yield from _constants(source, field)


def _constants(source: Source, node: WireField) -> Iterator[tuple[str, WireField]]:
    found = list(islice(messages(inside(source, node)), MAX_NODE_FIELDS))
    operators = [text(source, field) for field in found if field.number == _NODE_OPERATOR]
    outputs = [text(source, field) for field in found if field.number == _NODE_OUTPUT]
    if operators != ["Constant"] or len(outputs) != 1:
        return
    for field in found:
        if field.number == _NODE_ATTRIBUTE:
            for inner in messages(inside(source, field), _ATTRIBUTE_TENSOR):
                yield outputs[0], inner


def _tensor(source: Source, message: WireField, fallback: str) -> Tensor | None:
    """Return the tensor of a TensorProto; None when its values are not contiguous in it."""
    dims: list[int] = []
    kind, name = 0, ""
    data: list[WireField] = []
    for field in fields(inside(source, message)):
        if field.number == _DIMS:
            dims.extend(dimensions(source, field))
        elif field.number == _DATA_TYPE and field.wire == VARINT:
            kind = field.value
        elif field.number == _TENSOR_NAME and field.wire == BYTES:
            name = text(source, field)
        elif field.number in (_RAW_DATA, _FLOAT_DATA, _DOUBLE_DATA) and field.wire == BYTES:
            data.append(field)
        if len(dims) > MAX_RANK or len(data) > 1:
            return None
    if not data or kind not in _PACKED.get(data[0].number, (kind,)):
        return None
    (values,) = data
    dtype = KINDS.get(kind, "bytes")
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


def dimensions(source: Source, field: WireField) -> Iterator[int]:
    """Yield the numbers of a repeated field, packed or not; negative numbers are read as huge ones."""
    if field.wire == VARINT:
        yield field.value
    elif field.wire == BYTES:
        cursor = Cursor(source, field.value, field.value + min(field.length, 1024), NAME)
        while cursor.remaining:
            yield varint(cursor)
