"""The Flax msgpack reader on files laid out as ``flax.serialization`` lays them out."""

from __future__ import annotations

import random
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.formats.helpers import mutate, rebuild, scanned, survives
from theta.formats import flax_msgpack, scan_or_opaque
from theta.formats.layout import BytesSource


def pack(value: object) -> bytes:
    """The msgpack of what Flax writes, arrays as Flax writes them."""
    if isinstance(value, np.ndarray):
        return pack_array(value.shape, value.dtype.name, value.tobytes())
    if isinstance(value, dict):
        head = bytes([0x80 | len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
        return head + b"".join(pack(key) + pack(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return bytes([0x90 | len(value)]) + b"".join(pack(item) for item in value)
    if isinstance(value, str):
        raw = value.encode()
        return (bytes([0xA0 | len(raw)]) if len(raw) < 32 else b"\xda" + struct.pack(">H", len(raw))) + raw
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    assert isinstance(value, int)
    return bytes([value]) if value < 128 else b"\xcf" + struct.pack(">Q", value)


def pack_array(shape: Any, dtype: Any, data: Any, kind: int = 1) -> bytes:
    """An extension as Flax makes one of an array."""
    return extension(pack((tuple(shape) if not isinstance(shape, int) else shape, dtype, data)), kind)


def extension(body: bytes, kind: int = 1) -> bytes:
    """An extension."""
    return b"\xc9" + struct.pack(">I", len(body)) + bytes([kind]) + body


def test_arrays_are_tensors_and_all_else_is_skeleton() -> None:
    kernel = np.arange(300, dtype=np.float32).reshape(2, 150)
    value = {
        "params": {
            "Dense_0": {"kernel": kernel, "bias": np.zeros(3, ml_dtypes.bfloat16)},
            "é": np.array([1], np.int8),
        },
        "opt_state": {"0": [np.zeros((), np.int32), None, True, 2**40, 1.5, b"raw", "x" * 40]},
        "empty": np.zeros((0, 2)),
        "wide": {str(number): number for number in range(20)},
        "step": 7,
    }
    data = pack(value)
    layout = scanned(data, "flax")
    assert [(t.name, t.dtype, t.shape) for t in layout.tensors] == [
        ("params.Dense_0.kernel", "f32", (2, 150)),
        ("params.Dense_0.bias", "bf16", (3,)),
        ("params.é", "i8", (1,)),
        ("opt_state.0.0", "i32", ()),
        ("empty", "f64", (0, 2)),
    ]
    assert rebuild(layout, data, {"params.Dense_0.kernel": (kernel + 1).tobytes()}) == pack(
        value | {"params": value["params"] | {"Dense_0": value["params"]["Dense_0"] | {"kernel": kernel + 1}}}  # type: ignore[index, operator]
    )


def test_every_dtype_name() -> None:
    kinds = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "complex64"]
    kinds += ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
    data = pack({kind: np.zeros(2, np.dtype(kind)) for kind in kinds})
    assert [t.name for t in scanned(data, "flax").tensors] == kinds
    assert "bytes" not in {t.dtype for t in scanned(data, "flax").tensors}
    other = pack({"a": np.zeros(2), "b": np.zeros(2, "c16"), "c": np.zeros(2, "U3")})
    assert [t.name for t in scanned(other, "flax").tensors] == ["a"]


def test_a_chunked_array_is_a_tensor_a_chunk() -> None:
    chunked = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 2, "1": 3},
        "chunks": {"0": np.arange(4.0), "1": np.arange(2.0)},
    }
    layout = scanned(pack({"a": chunked}), "flax")
    assert [(t.name, t.shape) for t in layout.tensors] == [("a.chunks.0", (4,)), ("a.chunks.1", (2,))]


def a(value: bytes) -> bytes:
    """A map with the key ``a``."""
    return b"\x81\xa1a" + value


_GOOD = np.zeros(2, np.float32)
_HOSTILE = {
    "no arrays": pack({"a": 1, "b": "text"}),
    "truncated": pack({"a": _GOOD})[:-1],
    "trailing": pack({"a": _GOOD}) + b"\x00",
    "twice": pack({"a": _GOOD}) * 2,
    "equal names": b"\x82" + pack("a") + pack(_GOOD) + pack("a") + pack(_GOOD),
    "equal names by a dot": pack({"a.b": _GOOD, "a": {"b": _GOOD}}),
    "reserved byte": a(b"\xc1" + bytes(9)),
    "map of 4 G": a(b"\xdf\xff\xff\xff\xff" + bytes(9)),
    "array of 4 G": a(b"\xdd\xff\xff\xff\xff" + bytes(9)),
    "text of 4 G": a(b"\xdb\xff\xff\xff\xff" + bytes(9)),
    "bytes of 4 G": a(b"\xc6\xff\xff\xff\xff" + bytes(9)),
    "extension of 4 G": a(b"\xc9\xff\xff\xff\xff\x01" + bytes(9)),
    "deep arrays": a(b"\x91" * 10_000 + b"\x00"),
    "deep maps": b"\x81\xa1a" * 10_000 + b"\x00",
    "a map as key": b"\x82\xa1a" + pack(_GOOD) + b"\x81\x00\x00\x00",
    "extension is no array": a(extension(pack("text") + bytes(9))),
    "extension of two": a(extension(pack(((2,), "float32")))),
    "extension empty": a(extension(b"")),
    "shape no array": a(pack_array(2, "float32", bytes(8))),
    "shape of text": a(pack_array(("2",), "float32", bytes(8))),
    "shape negative": a(extension(b"\x93\x91\xff" + pack("float32") + pack(bytes(8)))),
    "shape too small": a(pack_array((1,), "float32", bytes(8))),
    "shape too large": a(pack_array((3,), "float32", bytes(8))),
    "shape overflow": a(pack_array((2**40, 2**40, 0), "float32", b"")),
    "shape 2**63": a(pack_array((2**63,), "float32", b"")),
    "rank 65": a(extension(b"\x93\xdc\x00\x41" + b"\x01" * 65 + pack("float32") + pack(bytes(4)))),
    "dtype a number": a(pack_array((2,), 7, bytes(8))),
    "dtype long": a(pack_array((2,), "float32" * 9, bytes(8))),
    "data text": a(pack_array((2,), "float32", "x" * 8)),
    "data short": a(extension(pack(((2,), "float32", bytes(8)))[:-1])),
    "data and more": a(extension(pack(((2,), "float32", bytes(8))) + b"\0")),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_files_are_opaque(name: str) -> None:
    layout, reason = scan_or_opaque(BytesSource(_HOSTILE[name]))
    assert layout.format == "opaque"
    assert reason and "\n" not in reason and len(reason) < 200


def test_names_do_not_multiply() -> None:
    """A key of 60 kB above many arrays would be gigabytes of names."""
    inner = b"\xdd" + struct.pack(">I", 5_000) + pack(np.zeros(0)) * 5_000
    data = b"\x81\xda" + struct.pack(">H", 60_000) + b"n" * 60_000 + inner
    layout, reason = scan_or_opaque(BytesSource(b"\x81\xa1a" + data))
    assert (layout.format, reason) == ("opaque", "flax: the names are longer than the file")


def run_mutations(count: int, seed: int) -> int:
    """The number of mutated files still read as tensors; all others were refused in one line."""
    rng = random.Random(seed)
    seeds = [
        pack({"a": _GOOD, "b": [{"c": np.ones((2, 1), np.int16)}, 1.5, "text"]}),
        pack({"x" * 40: _GOOD}),
    ]
    return sum(survives(mutate(rng.choice(seeds), rng), flax_msgpack.scan) is not None for _ in range(count))


def test_mutated_files_are_read_or_refused() -> None:
    assert run_mutations(5_000, seed=1) > 200


@pytest.mark.campaign
def test_mutated_files_at_length() -> None:
    assert run_mutations(200_000, seed=2) > 10_000
