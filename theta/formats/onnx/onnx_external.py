"""ONNX's external data: ``model.onnx.data`` has the values of ``model.onnx`` and no structure itself.

The ``external_data`` of each TensorProto in the model has location, offset and length of its values.  Only
files whose names contain that of the model are read: ``X.onnx.data``, ``X.onnx_data``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from theta.dtypes import DTYPES
from theta.errors import FormatError, ThetaError
from theta.formats.layout import MAX_SIZE, BytesSource, Layout, Placed, Source, Tensor
from theta.formats.onnx import onnx
from theta.formats.onnx.protobuf import BYTES, VARINT, WireField, fields, inside, messages, text

NAME: Final = "onnx-data"
_NAME_RE: Final = re.compile(r"(?P<model>.+\.onnx)[._]data")
_NUMBER_RE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_DIMS, _KIND, _TENSOR_NAME, _EXTERNAL, _LOCATION = 1, 2, 8, 13, 14


def detect(source: Source) -> bool:
    """Return whether the file has the name of external data, and a valid model beside it refers to it."""
    return bool(_found(source))


def scan(source: Source) -> Layout:
    """Return a layout of the tensors that the model has in this file; raises ``FormatError`` if none."""
    tensors = sorted(_found(source), key=lambda tensor: (tensor.offset, tensor.length))
    if not tensors:
        raise FormatError("onnx: no model speaks of this file")
    return Layout(NAME, source.size, tuple(tensors))


def _found(source: Source) -> list[Tensor]:
    if not isinstance(source, Placed) or (match := _NAME_RE.fullmatch(source.name)) is None:
        return []
    try:
        data = source.sibling(match["model"])
        model = BytesSource(data or b"")
        if not onnx.detect(model):
            return []
        return [tensor for tensor in _tensors(model, source.name) if tensor.length]
    except ThetaError:
        return []


def _tensors(model: Source, name: str) -> Iterator[Tensor]:
    for number, (fallback, message) in enumerate(onnx.tensor_messages(model)):
        if number >= onnx.MAX_INITIALIZERS:
            raise FormatError("onnx: too many initializers")
        tensor = _tensor(model, message, fallback or f"initializer.{number}", name)
        if tensor is not None:
            yield tensor


def _tensor(model: Source, message: WireField, fallback: str, file: str) -> Tensor | None:
    """Return the tensor of a TensorProto if its values are in ``file``, otherwise None."""
    dims: list[int] = []
    numbers = {_KIND: 0, _LOCATION: 0}
    name = fallback
    places: dict[str, str] = {}
    for field in fields(inside(model, message)):
        if field.number == _DIMS:
            dims.extend(onnx.dimensions(model, field))
        elif field.number in numbers and field.wire == VARINT:
            numbers[field.number] = field.value
        elif field.number == _TENSOR_NAME and field.wire == BYTES:
            name = text(model, field) or fallback
        elif field.number == _EXTERNAL and field.wire == BYTES:
            pair = {m.number: text(model, m) for m in messages(inside(model, field))}
            places[pair.get(1, "")] = pair.get(2, "")
    if numbers[_LOCATION] != 1 or places.get("location", "").removeprefix("./") != file:
        return None
    offset, length = (_number(places.get(key, "0")) for key in ("offset", "length"))
    dtype = onnx.KINDS.get(numbers[_KIND], "bytes")
    expected = DTYPES[dtype].itemsize
    for dimension in dims:
        expected = min(expected * dimension, MAX_SIZE)
    if dtype == "bytes" or expected != (length or expected):
        return Tensor(name, "bytes", (length,), offset, length)
    return Tensor(name, dtype, tuple(dims), offset, expected)


def _number(value: str) -> int:
    if not _NUMBER_RE.fullmatch(value):
        raise FormatError("onnx: an offset that is no number")
    return int(value)
