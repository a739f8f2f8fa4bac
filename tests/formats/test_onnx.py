"""The ONNX reader on files of the ``onnx`` package (``data/make_onnx.py``) and on hand-made messages."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.formats.helpers import Beside, mutate, rebuild, scanned, survives
from theta.dtypes import numpy_dtype
from theta.formats import scan, scan_or_opaque
from theta.formats.layout import BytesSource
from theta.formats.onnx import onnx

DATA = Path(__file__).parent / "data"


def load(seed: int = 1) -> bytes:
    """A file that the onnx package wrote."""
    return (DATA / f"model.{seed}.onnx").read_bytes()


def test_the_initializers_of_a_file() -> None:
    data = load()
    tensors = {tensor.name: tensor for tensor in scanned(data, "onnx").tensors}
    kinds = {name[4:]: tensor.dtype for name, tensor in tensors.items() if name.startswith("raw.")}
    assert kinds == {
        "f4": "f32",
        "f8": "f64",
        "f2": "f16",
        "u1": "u8",
        "i1": "i8",
        "u2": "u16",
        "i2": "i16",
        "i4": "i32",
        "i8": "i64",
        "u4": "u32",
        "u8": "u64",
        "?": "bool",
        "c8": "c64",
    }
    others = {name: (t.dtype, t.shape) for name, t in tensors.items() if not name.startswith("raw.")}
    assert others == {
        "c": ("f64", (3,)),
        "floats": ("f32", (4,)),
        "doubles": ("f64", (4,)),
        "bf16": ("bf16", (2,)),
        "scalar": ("f32", ()),
        "initializer.19": ("f64", (3,)),
    }
    rng = np.random.default_rng(1)  # as the script draws them
    for kind in kinds:
        expected = rng.integers(0, 2, (2, 3)).astype(kind)
        tensor = tensors[f"raw.{kind}"]
        values = np.frombuffer(data[tensor.offset : tensor.end], numpy_dtype(tensor.dtype))
        assert np.array_equal(values.reshape(tensor.shape), expected)
    floats = np.frombuffer(data[tensors["floats"].offset : tensors["floats"].end], "<f4")
    assert np.array_equal(floats, rng.standard_normal(4).astype("f4"))


def test_new_values_in_the_old_skeleton_are_the_new_file() -> None:
    first, second = load(1), load(2)
    values = {t.name: second[t.offset : t.end] for t in scanned(second, "onnx").tensors}
    assert first != second and rebuild(scanned(first, "onnx"), first, values) == second


def varint(value: int) -> bytes:
    """A number in the wire format."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, value: int | bytes) -> bytes:
    """A field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(*fields: bytes, name: bytes = b"a", dims: tuple[int, ...] = (2,), kind: int = 1) -> bytes:
    """A TensorProto as an initializer."""
    shape = b"".join(field(1, dimension) for dimension in dims)
    return field(5, shape + field(2, kind) + field(8, name) + b"".join(fields))


def model(*graph: bytes) -> bytes:
    """A ModelProto."""
    return field(1, 8) + field(7, b"".join(graph)) + field(8, field(2, 18))


_RAW = field(9, bytes(8))


def shapes(data: bytes) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return name, dtype and shape of each tensor in ``data``."""
    return [(t.name, t.dtype, t.shape) for t in scanned(data, "onnx").tensors]


def test_hand_made_files_are_read() -> None:
    assert shapes(model(tensor(_RAW))) == [("a", "f32", (2,))]
    packed = field(5, field(1, varint(1) + varint(2)) + field(2, 1) + field(8, b"a") + _RAW)
    assert shapes(model(packed)) == [("a", "f32", (1, 2))]
    assert shapes(model(tensor(field(4, bytes(8))))) == [("a", "f32", (2,))]
    assert shapes(model(tensor(_RAW), tensor(_RAW))) == [("a", "f32", (2,)), ("initializer.1", "f32", (2,))]


@pytest.mark.parametrize(
    "message",
    [
        tensor(_RAW, dims=(3,)),
        tensor(_RAW, dims=(2**63 - 1,)),
        tensor(_RAW, dims=(2**64 - 2,)),
        tensor(_RAW, dims=(2**62, 4)),
        tensor(_RAW, kind=99),
        tensor(_RAW, kind=22),
        tensor(_RAW, kind=8),
    ],
)
def test_a_shape_or_type_that_does_not_fit_is_bytes(message: bytes) -> None:
    assert shapes(model(message)) == [("a", "bytes", (8,))]


@pytest.mark.parametrize(
    "message",
    [
        tensor(),
        tensor(_RAW, _RAW),
        tensor(_RAW, field(4, bytes(8))),
        tensor(field(10, bytes(8))),
        tensor(field(4, bytes(8)), kind=6),
        tensor(_RAW, dims=(1,) * 65),
        tensor(field(9, 5)),
        field(5, b""),
    ],
)
def test_values_that_are_not_in_one_piece_are_skeleton(message: bytes) -> None:
    assert shapes(model(message, tensor(_RAW, name=b"b"))) == [("b", "f32", (2,))]
    layout, reason = scan_or_opaque(BytesSource(model(message)))
    assert (layout.format, reason) == ("opaque", "onnx: no initializers that lie in one piece")


_HOSTILE = {
    "empty graph": model(),
    "name of 65 kB": model(tensor(_RAW, name=b"x" * 70_000)),
    "graph cut": model(tensor(_RAW)[:-1]),
    "tensor beyond the graph": model(b"\x2a\x7f"),
    "length of 2**63": model(b"\x2a" + varint(2**63)),
    "length of 11 bytes": model(b"\x2a" + b"\xff" * 11),
    "field 0": model(b"\x02\x00"),
    "wire type 3": model(b"\x0b"),
    "wire type 7": model(b"\x0f"),
    "fixed cut": model(b"\x09\x00"),
    "raw data beyond": model(field(5, field(2, 1) + b"\x4a\x7f")),
    "names that collide": model(tensor(_RAW, name=b"initializer.1"), tensor(_RAW, name=b"")),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_files_are_opaque_with_a_reason(name: str) -> None:
    layout, reason = scan_or_opaque(BytesSource(_HOSTILE[name]))
    assert layout.format == "opaque"
    assert reason and "\n" not in reason and len(reason) < 200


@pytest.mark.parametrize(
    "data",
    [
        model(tensor(_RAW))[:-1],
        model(tensor(_RAW)) + b"\x00",
        model(tensor(_RAW)) * 2,
        field(1, 8) + field(8, field(2, 18)),
        field(9, b"x") + model(tensor(_RAW)),
        field(1, b"8") + model(tensor(_RAW)),
        field(1, 8) * 20_000 + model(tensor(_RAW)),
    ],
)
def test_what_is_not_exactly_a_model_is_not_detected(data: bytes) -> None:
    layout, reason = scan_or_opaque(BytesSource(data))
    assert (layout.format, reason) == ("opaque", "")


def test_many_fields_cost_little() -> None:
    data = model(field(1, b"\x0a\x00" * 500_000), tensor(_RAW), b"".join([tensor(_RAW)] * 20_000))
    source = BytesSource(data)
    tracemalloc.start()
    try:
        layout = onnx.scan(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(layout.tensors) == 20_001
    assert peak < len(data) + 64 * 2**20


def run_mutations(count: int, seed: int) -> int:
    """The number of mutated files still read as tensors; all others were refused in one line."""
    rng = random.Random(seed)
    constant = field(1, field(2, b"out") + field(4, b"Constant") + field(5, field(5, tensor(_RAW)[2:])))
    seeds = [model(tensor(_RAW), constant, tensor(field(10, bytes(16)), kind=11)), load()]
    accepted = 0
    for _ in range(count):
        source = mutate(rng.choice(seeds), rng)
        onnx.detect(BytesSource(source))
        accepted += survives(source, onnx.scan) is not None
    return accepted


def test_mutated_files_are_read_or_refused() -> None:
    assert run_mutations(3_000, seed=1) > 200


@pytest.mark.campaign
def test_mutated_files_at_length() -> None:
    assert run_mutations(150_000, seed=2) > 10_000


def test_float_data_is_little_endian_floats() -> None:
    data = model(tensor(field(4, struct.pack("<2f", 1.5, -2))))
    (found,) = scanned(data, "onnx").tensors
    assert struct.unpack("<2f", data[found.offset : found.end]) == (1.5, -2)


# External data.


def external(*places: tuple[str, dict[str, str]], kind: int = 1, dims: tuple[int, ...] = (4,)) -> bytes:
    """A model whose initializers are elsewhere: (name, what external_data says)."""

    def field(number: int, body: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(body)) + body

    graph = b""
    for name, entries in places:
        pairs = [field(1, key.encode()) + field(2, value.encode()) for key, value in entries.items()]
        tensor = b"".join(b"\x08" + varint(size) for size in dims) + b"\x10" + varint(kind)
        tensor += field(8, name.encode()) + b"".join(field(13, pair) for pair in pairs) + b"\x70\x01"
        graph += field(5, tensor)
    return b"\x08\x08" + field(7, graph)


def at(offset: object, length: object = 16, location: str = "m.onnx.data") -> dict[str, str]:
    return {"location": location, "offset": str(offset), "length": str(length)}


def test_external_data_is_read_by_the_model_beside_it() -> None:
    for version in (1, 2):
        data = (DATA / "story" / f"{version}.external.onnx.data").read_bytes()
        model = (DATA / "story" / f"{version}.external.onnx").read_bytes()
        layout = scan(Beside(data, "external.onnx.data", {"external.onnx": model}))
        assert [(t.name, t.dtype, t.shape) for t in layout.tensors] == [
            ("big", "f32", (64, 64)),
            ("small", "f32", (16,)),
        ]
        for file, others in (("external.onnx.data", {}), ("other.onnx.data", {"other.onnx": model})):
            assert scan_or_opaque(Beside(data, file, others))[0].format == "opaque"


def test_external_data_by_hand() -> None:
    model = external(("a", at(32)), ("b", {"location": "./m.onnx.data"}), ("c", at(0, location="else")))
    layout = scan(Beside(bytes(48), "m.onnx.data", {"m.onnx": model}))
    assert [(t.name, t.shape, t.offset) for t in layout.tensors] == [("b", (4,), 0), ("a", (4,), 32)]
    strange = scan(Beside(bytes(48), "m.onnx_data", {"m.onnx": external(("a", at(0, 10, "m.onnx_data")))}))
    assert [(t.dtype, t.shape) for t in strange.tensors] == [("bytes", (10,))]


@pytest.mark.parametrize(
    "model",
    [
        external(("a", at(40))),
        external(("a", at(0)), ("b", at(8))),
        external(("a", at(0)), ("a", at(16))),
        external(("a", at(-1))),
        external(("a", at("0x10"))),
        external(("a", at(0, "9" * 30))),
        external(("a", at(2**62))),
        external(("a", at(0, 2**63))),
        external(("a", at(0, 0)), dims=(2**40, 2**40)),
        external(("a", at(0, 0)), dims=(1,) * 70),
        external(("a", at(0, 0)), dims=(0,)),
        external(("a", at(0)))[:-1],
        b"",
    ],
)
def test_models_that_do_not_fit_leave_the_data_opaque(model: bytes) -> None:
    layout, reason = scan_or_opaque(Beside(bytes(48), "m.onnx.data", {"m.onnx": model}))
    assert layout.format == "opaque" and "\n" not in reason
