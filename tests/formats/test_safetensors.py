"""The safetensors reader and writer beside the official library."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors as safetensors_library
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize

from theta.dtypes import DTYPES
from theta.errors import FormatError
from theta.formats import safetensors, scan
from theta.formats.layout import BytesSource, Layout, Tensor, TensorSpec

# fmt: off
_LIBRARY_NAMES = {
    "bool": "bool", "u8": "uint8", "i8": "int8", "u16": "uint16", "i16": "int16", "u32": "uint32",
    "i32": "int32", "u64": "uint64", "i64": "int64", "f16": "float16", "bf16": "bfloat16",
    "f32": "float32", "f64": "float64", "c64": "complex64", "f4": "float4_e2m1fn_x2",
    "f8_e4m3": "float8_e4m3fn", "f8_e5m2": "float8_e5m2", "f8_e8m0": "float8_e8m0fnu",
    "f8_e4m3fnuz": "float8_e4m3fnuz", "f8_e5m2fnuz": "float8_e5m2fnuz",
}
# fmt: on
_ODD_NAMES = [
    "a/b",
    "../up",
    "..",
    ".git",
    ".git/config",
    "a\\b",
    "tab\there",
    "line\nbreak",
    "\x00\x01\x7f\x85\u2028",
    'quote"d',
    "naïve",
    "日本語",
    "🜂",
    " ",
    "trailing.",
    "x" * 1000,
    "é" * 32768,
    "metadata__",
    "@tensor",
    "CON",
]


def _deserialize(data: bytes) -> Any:
    return deserialize(data)  # type: ignore[no-untyped-call]


def build(header: object | bytes, data: bytes = b"") -> bytes:
    """A file with the JSON of ``header`` (or exactly these bytes) and ``data``."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def scanned(data: bytes) -> Layout:
    """The layout of ``data``, which must be detected and well formed."""
    source = BytesSource(data)
    assert safetensors.detect(source)
    layout = scan(source)
    assert layout.format == "safetensors"
    return layout


def assert_agrees_with_the_library(data: bytes) -> None:
    """Names, dtypes, shapes and bytes are those that the official library reads."""
    ours = {t.name: (t.dtype.upper(), list(t.shape), data[t.offset : t.end]) for t in scanned(data).tensors}
    theirs = {
        name: (info["dtype"], list(info["shape"]), bytes(info["data"])) for name, info in _deserialize(data)
    }
    assert ours == theirs


def official(tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str] | None) -> bytes:
    """A file written by the official library; the dtypes are theta's names."""
    kept = {name: np.frombuffer(data or b"\0", np.uint8) for name, (_, _, data) in tensors.items()}
    specs = {
        name: safetensors_library.TensorSpec(
            dtype=_LIBRARY_NAMES[dtype], shape=shape, data_ptr=kept[name].ctypes.data, data_len=len(data)
        )
        for name, (dtype, shape, data) in tensors.items()
    }
    return bytes(safetensors_library.serialize(specs, metadata))


def test_every_dtype_is_laid_out_as_the_library_does() -> None:
    shapes: list[list[int]] = [[0], [3, 0, 2], [8], [2, 4], [4, 1, 2, 1], []]
    tensors = {}
    for number, dtype in enumerate(_LIBRARY_NAMES):
        for shape in shapes[: 4 if DTYPES[dtype].bits == 4 else 6]:
            stored = [*shape[:-1], shape[-1] // 2] if dtype == "f4" else shape  # two values a byte
            name = f"{number * 7 % 23}.{shape}.{dtype}"
            tensors[name] = (dtype, stored, bytes(range(DTYPES[dtype].nbytes(shape))))
    file = official(tensors, {"only": "one"})
    assert_agrees_with_the_library(file)
    read = scanned(file).tensors
    specs = [TensorSpec(t.name, t.dtype, t.shape) for t in sorted(read, key=lambda t: t.name)]
    header, names = safetensors.plan(specs, {"only": "one"})
    assert header == file[: len(header)]
    assert names == tuple(tensor.name for tensor in read)


def test_every_dtype_of_the_table_is_written_and_read_back() -> None:
    specs = [TensorSpec(f"t{n}", dtype, (4, 2)) for n, dtype in enumerate(sorted(set(DTYPES) - {"bytes"}))]
    header, names = safetensors.plan(specs, None)
    by_name = {spec.name: spec for spec in specs}
    file = header + b"".join(bytes(DTYPES[by_name[name].dtype].nbytes((4, 2))) for name in names)
    assert_agrees_with_the_library(file)
    assert {(t.name, t.dtype, t.shape) for t in scanned(file).tensors} == {
        (spec.name, spec.dtype, spec.shape) for spec in specs
    }


@pytest.mark.parametrize("name", _ODD_NAMES)
def test_odd_names_are_read_as_the_library_wrote_them(name: str) -> None:
    file = official({name: ("i16", [2], b"abcd"), "other": ("u8", [], b"x")}, None)
    assert {t.name for t in scanned(file).tensors} == {name, "other"}
    specs = [TensorSpec(name, "i16", (2,)), TensorSpec("other", "u8", ())]
    header, _ = safetensors.plan(specs, None)
    assert file.startswith(header)
    escaped = build(json.dumps({name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode(), b"x")
    assert scanned(escaped).tensors[0].name == name


def test_any_order_any_spacing_and_unpadded_headers_are_read() -> None:
    text = b"""{ "b" : { "data_offsets" : [ 4 , 8 ] , "shape":[ ] ,\r\n "dtype" :"F32" },
    \t"__metadata__" : { "k" : "v" } , "z":{"dtype":"U8","shape":[0,5],"data_offsets":[4,4]},
    "a":{"shape":[2,2],"data_offsets":[0,4],"dtype":"I8"} } \n\t """
    file = build(text, bytes(8))
    start = len(file) - 8
    assert scanned(file).tensors == (
        Tensor("a", "i8", (2, 2), start, 4),
        Tensor("z", "u8", (0, 5), start + 4, 0),
        Tensor("b", "f32", (), start + 4, 4),
    )
    assert_agrees_with_the_library(file)
    assert safetensors.read_metadata(file[:start]) == {"k": "v"}


@pytest.mark.parametrize("header", [b"{}", b'{"__metadata__":{}}', b"{ }  \n", b'{"__metadata__" : { } }'])
def test_a_file_without_tensors_is_all_skeleton(header: bytes) -> None:
    layout = scanned(build(header))
    assert layout.tensors == ()
    assert list(layout.gaps()) == [(0, 8 + len(header))]
    _deserialize(build(header))


def test_metadata() -> None:
    for metadata in ({"format": "pt", "é\n": '"x"'}, {}, None):
        header, _ = safetensors.plan([TensorSpec("a", "u8", (1,))], metadata)
        assert safetensors.read_metadata(header) == metadata
        assert len(header) % 8 == 0
        assert_agrees_with_the_library(header + b"x")
    with pytest.raises(FormatError, match="as long as"):
        safetensors.read_metadata(header[:-1])


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("a", "bytes", (1,)),
        TensorSpec("", "u8", (1,)),
        TensorSpec("__metadata__", "u8", (1,)),
        TensorSpec("\ud800", "u8", (1,)),
        TensorSpec("a", "f6_e2m3", (1,)),
        TensorSpec("a", "u8", (-1,)),
    ],
)
def test_what_cannot_be_written_is_refused(spec: TensorSpec) -> None:
    with pytest.raises(FormatError):
        safetensors.plan([spec], None)


def test_a_name_is_written_once() -> None:
    with pytest.raises(FormatError, match="named 'a'"):
        safetensors.plan([TensorSpec("a", "u8", (1,)), TensorSpec("a", "i8", (1,))], None)


_SPECS = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
            lambda name: name != "__metadata__"
        ),
        st.sampled_from(sorted(set(DTYPES) - {"bytes", "f4", "f6_e2m3", "f6_e3m2"})),
        st.lists(st.integers(0, 4), max_size=4).map(tuple),
    ),
    max_size=8,
    unique_by=lambda item: item[0],
)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
_METADATA = st.none() | st.dictionaries(_TEXT, _TEXT, max_size=3)


@given(_SPECS, _METADATA)
def test_round_trip(items: list[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str] | None) -> None:
    specs = [TensorSpec(*item) for item in items]
    header, names = safetensors.plan(specs, metadata)
    by_name = {spec.name: spec for spec in specs}
    data = b"".join(bytes(DTYPES[by_name[name].dtype].nbytes(by_name[name].shape)) for name in names)
    layout = scanned(header + data)
    assert {TensorSpec(t.name, t.dtype, t.shape) for t in layout.tensors} == set(specs)
    assert sum(t.length for t in layout.tensors) == len(data)
    assert list(layout.gaps()) == [(0, len(header))]
    assert safetensors.read_metadata(header) == metadata
    assert_agrees_with_the_library(header + data)
