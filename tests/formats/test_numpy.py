"""The npy and npz readers beside numpy."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from tests.formats.helpers import mutate, rebuild, scanned, survives
from theta.errors import FormatError
from theta.formats import npy, scan_or_opaque
from theta.formats.archives import npz, zipped
from theta.formats.layout import BytesSource, Layout, View
from theta.formats.npy import MAGIC

Array = np.ndarray[Any, Any]


def npy_bytes(array: Array, version: tuple[int, int] | None = None) -> bytes:
    """Return the bytes that ``numpy.save`` writes."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version, allow_pickle=False)
    return buffer.getvalue()


def npz_bytes(**arrays: Array) -> bytes:
    """Return the bytes that ``numpy.savez`` writes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def values(layout: Layout, data: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name -> dtype, shape and bytes."""
    return {t.name: (t.dtype, t.shape, data[t.offset : t.end]) for t in layout.tensors}


_PLAIN = {
    "?": "bool",
    "u1": "u8",
    "i1": "i8",
    "<u2": "u16",
    "<i2": "i16",
    "<u4": "u32",
    "<i4": "i32",
    "<u8": "u64",
    "<i8": "i64",
    "<f2": "f16",
    "<f4": "f32",
    "<f8": "f64",
    "<c8": "c64",
}


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4), (1,) * 32])
@pytest.mark.parametrize("kind", _PLAIN)
def test_plain_arrays(kind: str, shape: tuple[int, ...], version: tuple[int, int]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).astype(kind).reshape(shape)
    data = npy_bytes(array, version)
    assert values(scanned(data, "npy"), data) == {"data": (_PLAIN[kind], shape, array.tobytes())}


@pytest.mark.parametrize(
    ("array", "width"),
    [
        (np.arange(6, dtype=">f4").reshape(2, 3), 4),
        (np.arange(6, dtype=">i8").reshape(2, 3), 8),
        (np.ones((2, 3), "c16"), 16),
        (np.full((2, 3), "ab", "<U2"), 8),
        (np.full((2, 3), b"abc", "S3"), 3),
        (np.zeros((2, 3), "V2"), 2),
        (np.zeros((2, 3), "M8[ns]"), 8),
        (np.zeros((2, 3), "m8[25s]"), 8),
    ],
)
def test_what_theta_has_no_dtype_for_is_bytes_an_element(array: Array, width: int) -> None:
    data = npy_bytes(array)
    assert values(scanned(data, "npy"), data) == {"data": ("bytes", (2, 3, width), array.tobytes())}


def test_fortran_order_is_the_transposed_array_and_a_view() -> None:
    array = np.asfortranarray(np.arange(24, dtype="<f4").reshape(2, 3, 4))
    data = npy_bytes(array)
    layout = scanned(data, "npy")
    assert values(layout, data) == {"data": ("f32", (4, 3, 2), array.T.tobytes())}
    assert layout.views == (View("data", "data", "f32", (2, 3, 4), (1, 2, 6)),)
    (view,) = layout.views
    flat = np.frombuffer(data[layout.tensors[0].offset :], "<f4")
    strides = [4 * step for step in view.strides]
    assert np.array_equal(np.lib.stride_tricks.as_strided(flat, view.shape, strides), array)


def header(text: str, data: bytes = bytes(8), version: bytes = b"\x01\x00") -> bytes:
    """An npy file with exactly this header."""
    return MAGIC + version + struct.pack("<H", len(text)) + text.encode() + data


def plain(shape: str = "(1,)", descr: str = "'<f8'", order: str = "False") -> str:
    """A header in numpy's form."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


_HOSTILE = {
    "magic only": MAGIC + b"\x01\x00",
    "nine bytes": MAGIC + b"\x01\x00\x00",
    "version 0": header(plain(), version=b"\x00\x00"),
    "version 4": header(plain(), version=b"\x04\x00"),
    "version 1.1": header(plain(), version=b"\x01\x01"),
    "header beyond": MAGIC + b"\x01\x00\xff\xff" + plain().encode(),
    "header of 4 GB": MAGIC + b"\x02\x00\xff\xff\xff\xff" + plain().encode(),
    "header of 11 bytes in version 2": MAGIC + b"\x02\x00\x00\x00\x00",
    "empty header": header("", b""),
    "no dict": header("[]"),
    "expression": header(plain("(__import__('os').getpid(),)")),
    "deep": header("(" * 5000),
    "minus chain": header(plain("(" + "-" * 5000 + "1,)")),
    "objects": header(plain(descr="'|O'")),
    "objects with a width": header(plain(descr="'|O8'")),
    "structured": header(plain(descr="[('a', '<f8')]")),
    "no width": header(plain(descr="'<f'")),
    "width 0 and data": header(plain(descr="'|V0'")),
    "huge width": header(plain(descr="'|V999999999999'")),
    "text behind the kind": header(plain(descr="'<f8x'")),
    "a unit on a float": header(plain(descr="'<f8[ns]'")),
    "unknown order": header(plain(descr="'!f8'")),
    "number as shape": header(plain("(1)")),
    "list as shape": header(plain("[1]")),
    "negative": header(plain("(-1,)")),
    "float": header(plain("(1.0,)")),
    "overflow": header(plain(f"({2**62}, 4)")),
    "wraps to eight": header(plain(f"({2**61 + 1},)")),
    "overflow behind zero": header(plain(f"({2**40}, {2**40}, 0)"), b""),
    "5000 digits": header(plain("(1" + "0" * 5000 + ",)")),
    "64 dimensions": header(plain("(" + "1, " * 63 + "1)")),
    "too little": header(plain("(2,)")),
    "too much": header(plain("(0,)")),
    "trailing": header(plain(), bytes(9)),
    "duplicate key": header(plain()[:-3] + "'shape': (1,), }\n"),
    "unknown key": header(plain()[:-3] + "'x': 1, }\n"),
    "missing key": header("{'descr': '<f8', 'shape': (1,), }\n"),
    "order as number": header(plain(order="0")),
    "text behind": header(plain() + "x"),
    "zero behind": header(plain() + "\0"),
    "not ascii": header(plain(descr="'<é8'")),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_npy(name: str) -> None:
    source = BytesSource(_HOSTILE[name])
    with pytest.raises(FormatError) as caught:
        npy.scan(source)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)
    assert scan_or_opaque(source)[0].format == "opaque"


def test_npz_members_are_tensors_and_their_crcs_are_derived() -> None:
    arrays: dict[str, Array] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "deep/name": np.ones((), np.int64),
        "t": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.zeros((0, 3)),
        "text": np.array(["a", "bc"]),
    }
    data = npz_bytes(**arrays)
    layout = scanned(data, "npz")
    assert [t.name for t in layout.tensors] == list(arrays)
    assert layout.views == (View("t", "t", "f64", (2, 3), (1, 2)),)
    assert len(layout.derived) == 2 * len(arrays)
    changed: dict[str, Array] = {"a": np.full((2, 3), 7, np.float32), "deep/name": np.array(-5)}
    restored = rebuild(layout, data, {name: array.tobytes() for name, array in changed.items()})
    assert restored == npz_bytes(**(arrays | changed))
    with np.load(io.BytesIO(restored)) as loaded:
        for name, array in (arrays | changed).items():
            assert np.array_equal(loaded[name], array)


def test_objects_in_npz_are_skeleton() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, o=np.array([{}], object), a=np.ones(2))
    layout = scanned(buffer.getvalue(), "npz")
    assert [t.name for t in layout.tensors] == ["a"]


def test_compressed_npz_is_opaque_with_a_reason() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.ones(2))
    layout, reason = scan_or_opaque(BytesSource(buffer.getvalue()))
    assert layout.format == "opaque"
    assert reason == "npz: the member 'a.npy' is compressed"


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, npy_bytes(np.arange(3)))
    return buffer.getvalue()


def _with(data: bytes, at: int, value: bytes) -> bytes:
    at %= len(data)
    return data[:at] + value + data[at + len(value) :]


_ZIP = _zip("a.npy", "b.npy")
_CENTRAL = _ZIP.index(b"PK\x01\x02")
_SECOND = _ZIP.index(b"PK\x03\x04", 4)
_HOSTILE_ZIPS = {
    "no end": _ZIP[:-22],
    "end cut": _ZIP[:-1],
    "only a local header": _ZIP[:60],
    "bytes behind": _ZIP + b"x",
    "bytes before": b"PK\x03\x04" + _ZIP[:0] + b"x" * 100 + _ZIP,
    "count too small": _with(_with(_ZIP, -14, b"\1\0"), -12, b"\1\0"),
    "count too large": _with(_with(_ZIP, -14, b"\3\0"), -12, b"\3\0"),
    "counts differ": _with(_ZIP, -14, b"\1\0"),
    "second disk": _with(_ZIP, -18, b"\1\0"),
    "directory length": _with(_ZIP, -10, b"\1\0\0\0"),
    "directory length max": _with(_ZIP, -10, b"\xff" * 4),
    "directory offset": _with(_ZIP, -6, b"\0\0\0\0"),
    "directory offset max": _with(_ZIP, -6, b"\xff" * 4),
    "comment length": _with(_ZIP, -2, b"\1\0"),
    "entry magic": _with(_ZIP, _CENTRAL, b"XX"),
    "entry encrypted": _with(_ZIP, _CENTRAL + 8, b"\1"),
    "entry method": _with(_ZIP, _CENTRAL + 10, b"\x08"),
    "entry packed size": _with(_ZIP, _CENTRAL + 20, b"\1"),
    "entry size": _with(_ZIP, _CENTRAL + 24, b"\1"),
    "entry sizes max": _with(_ZIP, _CENTRAL + 20, b"\xff" * 8),
    "entry sizes large": _with(_ZIP, _CENTRAL + 20, b"\xfe\xff\xff\xff" * 2),
    "entry name length": _with(_ZIP, _CENTRAL + 28, b"\xff\xff"),
    "entry extra length": _with(_ZIP, _CENTRAL + 30, b"\xff\xff"),
    "entry comment length": _with(_ZIP, _CENTRAL + 32, b"\xff\xff"),
    "entry offset": _with(_ZIP, _CENTRAL + 42, b"\1"),
    "entry offset max": _with(_ZIP, _CENTRAL + 42, b"\xff" * 4),
    "entry name": _with(_ZIP, _CENTRAL + 46, b"c"),
    "entry name zero": _with(_with(_ZIP, _CENTRAL + 46, b"\0"), 30, b"\0"),
    "local magic": _with(_ZIP, _SECOND, b"XX"),
    "local name": _with(_ZIP, _SECOND + 30, b"c"),
    "local name length": _with(_ZIP, _SECOND + 26, b"\4"),
    "local extra length": _with(_ZIP, _SECOND + 28, b"\xff\xff"),
    "local flags": _with(_ZIP, _SECOND + 6, b"\x08"),
    "local method": _with(_ZIP, _SECOND + 8, b"\x08"),
    "duplicate name": _ZIP.replace(b"b.npy", b"a.npy"),
    "both entries one member": _with(
        _with(_ZIP, _CENTRAL + 46 + 5 + 42, b"\0\0\0\0"), _CENTRAL + 46 + 5 + 46, b"a"
    ),
}


@pytest.mark.parametrize("name", _HOSTILE_ZIPS)
def test_hostile_zip(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        zipped.read_members(BytesSource(_HOSTILE_ZIPS[name]))
    assert str(caught.value).startswith("zip: ") and len(str(caught.value)) < 200


def test_a_zip_with_a_comment_and_zip64_is_read() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"a comment"
        for number in range(70_000):
            archive.writestr(f"{number}", b"")
        with archive.open("last.npy", "w", force_zip64=True) as stream:
            stream.write(npy_bytes(np.arange(3)))
    members = zipped.read_members(BytesSource(buffer.getvalue()))
    assert len(members) == 70_001
    assert members[-1].name == "last.npy"
    assert len(list(members[-1].derived())) == 2


def test_a_streamed_zip_has_its_crc_in_a_descriptor() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(bytes(data))

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        archive.writestr("a.npy", npy_bytes(np.arange(3)))
    layout = scanned(pipe.data, "npz")
    assert [field.op for field in layout.derived] == ["crc32", "copy"]
    changed = rebuild(layout, pipe.data, {"a": np.arange(3, 6).tobytes()})
    with np.load(io.BytesIO(changed)) as loaded:
        assert loaded["a"].tolist() == [3, 4, 5]


def _check_npy(data: bytes) -> bool:
    layout = survives(data, npy.scan)
    if layout is None:
        return False
    with np.errstate(all="ignore"):
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    assert array.tobytes("A") == data[layout.tensors[0].offset :]
    return True


_NPY_TOKENS = [b"<f8", b">i4", b"True", b"(1,)", b"()", b"-1", b"0", b"01", b"|O", b"'", b", "]


def run_mutations(count: int, seed: int) -> tuple[int, int]:
    """Numbers of mutated npy and npz files that were read as tensors; the rest was refused in one line."""
    rng = random.Random(seed)
    arrays = [npy_bytes(np.arange(6, dtype=kind).reshape(2, 3)) for kind in ("<f4", "<i8", ">i2")]
    archives = [_ZIP, npz_bytes(a=np.ones(2), b=np.zeros((2, 2), np.int8))]
    plain_count = sum(_check_npy(mutate(rng.choice(arrays), rng, _NPY_TOKENS)) for _ in range(count))
    zip_count = sum(survives(mutate(rng.choice(archives), rng), npz.scan) is not None for _ in range(count))
    return plain_count, zip_count


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_read_as_numpy_does_or_refused() -> None:
    assert min(run_mutations(4_000, seed=1)) > 100


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_at_length() -> None:
    assert min(run_mutations(200_000, seed=2)) > 5_000
