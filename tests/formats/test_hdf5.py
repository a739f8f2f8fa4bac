"""The HDF5 reader on files of h5py (``data/make_hdf5.py``), Keras's zip around one, and damaged files."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.formats.helpers import mutate, rebuild, scanned, survives
from theta.errors import FormatError
from theta.formats import scan_or_opaque
from theta.formats.hdf5 import hdf5, keras_zip
from theta.formats.layout import BytesSource, Layout, View

DATA = Path(__file__).parent / "data"


def load(name: str, seed: int = 1) -> bytes:
    """A file that h5py wrote."""
    return (DATA / f"{name}.{seed}.h5").read_bytes()


def found(layout: Layout) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> dtype and shape."""
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in layout.tensors}


_KINDS = {
    "f2": "f16",
    "f8": "f64",
    "i1": "i8",
    "u1": "u8",
    "i2": "i16",
    "u2": "u16",
    "i4": "i32",
    "u4": "u32",
    "i8": "i64",
    "u8": "u64",
}


def test_the_datasets_of_a_file_laid_out_as_keras_does() -> None:
    data = load("weights")
    layout = scanned(data, "hdf5")
    names = found(layout)
    for number in range(12):
        assert names[f"layers/dense_{number}/vars/0"] == ("f32", (3, 4))
        assert names[f"layers/dense_{number}/vars/1"] == ("f32", (4,))
    assert {kind: names[f"kinds/{kind}"][0] for kind in _KINDS} == _KINDS
    assert names["kinds/big_f4"] == ("bytes", (2, 3, 4)) and names["kinds/S3"] == ("bytes", (2, 3, 3))
    assert names["kinds/c8"] == ("bytes", (2, 3, 8)) and names["kinds/bool"] == ("bytes", (2, 3, 1))
    assert names["records"] == ("bytes", (2, 12)) and names["kinds/scalar"] == ("f64", ())
    assert not {"tied", "soft", "text", "empty", "none", "compressed"} & set(names)
    assert names["chunked[0]"] == names["chunked[4]"] == ("i64", (4,))
    assert "compressed[0]" not in names
    assert layout.views == (View("tied", "layers/dense_0/vars/0", "f32", (3, 4), (4, 1)),)


def test_values_are_where_they_should_be() -> None:
    data = load("weights")
    tensors = {tensor.name: tensor for tensor in scanned(data, "hdf5").tensors}
    rng = np.random.default_rng(1)  # as the script draws them
    for number in range(12):
        for part, shape in (("0", (3, 4)), ("1", (4,))):
            tensor = tensors[f"layers/dense_{number}/vars/{part}"]
            assert data[tensor.offset : tensor.end] == rng.standard_normal(shape, np.float32).tobytes()


def test_chunks_are_tensors() -> None:
    """The edge chunks of 38 x 30 elements in chunks of 4 x 4 are padded; the tree has two levels."""
    data = load("chunked")
    layout = scanned(data, "hdf5")
    tensors = {tensor.name: tensor for tensor in layout.tensors}
    rng = np.random.default_rng(1)
    grid, whole = rng.standard_normal((38, 30), np.float32), rng.standard_normal((8, 8))
    assert len(tensors) == 10 * 8 + 1
    for row in range(0, 38, 4):
        for column in range(0, 30, 4):
            tensor = tensors[f"grid[{row},{column}]"]
            part = grid[row : row + 4, column : column + 4]
            chunk = np.frombuffer(data[tensor.offset : tensor.end], np.float32).reshape(tensor.shape)
            assert (chunk[: part.shape[0], : part.shape[1]] == part).all()
    assert tensors["whole[0,0]"].shape == (8, 8)
    assert data[tensors["whole[0,0]"].offset :].startswith(whole.tobytes())


def test_new_chunks_in_the_old_skeleton_are_the_new_file() -> None:
    first, second = load("chunked", 1), load("chunked", 2)
    layout = scanned(second, "hdf5")
    values = {tensor.name: second[tensor.offset : tensor.end] for tensor in layout.tensors}
    assert rebuild(scanned(first, "hdf5"), first, values) == second


_CHUNKED = load("chunked")
_NODE = _CHUNKED.index(b"TREE\1")
_UPPER = _CHUNKED.index(b"TREE\1\1")


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (_NODE, b"X"),
        (_NODE + 4, b"\0"),
        (_NODE + 6, b"\xff\xff"),
        (_UPPER + 24 + 32, struct.pack("<Q", _UPPER)),
        (_UPPER + 24 + 32, b"\xff" * 8),
        (_UPPER + 5, b"\0"),
        (_UPPER + 24 + 32 + 40, struct.pack("<Q", _NODE)),
    ],
    ids=["magic", "kind", "entries", "itself", "address max", "level", "a node twice"],
)
def test_damaged_trees_of_chunks(at: int, value: bytes) -> None:
    data = _CHUNKED[:at] + value + _CHUNKED[at + len(value) :]
    layout = survives(data, hdf5.scan)
    assert layout is None or len(layout.tensors) < 81


def test_structures_of_the_newest_format() -> None:
    names = found(scanned(load("latest"), "hdf5"))
    assert len(names) == 12
    assert names["layers/dense_2/vars/0"] == ("f32", (3, 4)) and names["kinds/i2"] == ("i16", (2, 3))


@pytest.mark.parametrize("name", ["weights", "latest"])
def test_new_values_in_the_old_skeleton_are_the_new_file(name: str) -> None:
    first, second = load(name, 1), load(name, 2)
    values = {t.name: second[t.offset : t.end] for t in scanned(second, "hdf5").tensors}
    assert first != second and rebuild(scanned(first, "hdf5"), first, values) == second


def keras(weights: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A ``.keras`` file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("metadata.json"), b'{"keras_version": "3.0", "date_saved": "today"}')
        archive.writestr(zipfile.ZipInfo("config.json"), b"{}")
        archive.writestr(zipfile.ZipInfo("model.weights.h5"), weights, compression)
    return buffer.getvalue()


def test_keras_zip() -> None:
    first, second = keras(load("weights", 1)), keras(load("weights", 2))
    layout = scanned(first, "keras")
    assert found(layout) == found(scanned(load("weights"), "hdf5"))
    assert [field.op for field in layout.derived] == ["crc32", "copy"]
    values = {t.name: second[t.offset : t.end] for t in scanned(second, "keras").tensors}
    assert rebuild(layout, first, values) == second


def test_a_compressed_keras_zip_is_opaque() -> None:
    layout, reason = scan_or_opaque(BytesSource(keras(load("weights"), zipfile.ZIP_DEFLATED)))
    assert (layout.format, reason) == ("opaque", "keras: no model.weights.h5, or it is compressed")


_FILE = load("weights")
_LATEST = load("latest")
_TREE = _FILE.index(b"TREE")
_SNOD = _FILE.index(b"SNOD")
_HEAP = _FILE.index(b"HEAP")
_ROOT = struct.unpack_from("<Q", _FILE, 64)[0]


def _with(at: int, value: bytes, data: bytes = _FILE) -> bytes:
    return data[:at] + value + data[at + len(value) :]


_MAX = b"\xff" * 8
_HOSTILE = {
    "signature only": _FILE[:48],
    "superblock 4": _with(8, b"\x04"),
    "superblock 255": _with(8, b"\xff"),
    "addresses of 4 bytes": _with(13, b"\x04"),
    "lengths of 4 bytes": _with(14, b"\x04"),
    "base address": _with(24, b"\x01"),
    "root address max": _with(64, _MAX),
    "root address beyond": _with(64, struct.pack("<Q", len(_FILE))),
    "root address 2**63": _with(64, struct.pack("<Q", 2**63)),
    "root address 0": _with(64, bytes(8)),
    "root header version": _with(_ROOT, b"\x07"),
    "root header length max": _with(_ROOT + 8, b"\xff\xff\xff\xff"),
    "root header length 0": _with(_ROOT + 8, b"\0\0\0\0"),
    "message longer than the header": _with(_ROOT + 18, b"\xff\xff"),
    "tree address max": _with(_ROOT + 24, _MAX),
    "tree address is the heap": _with(_ROOT + 24, struct.pack("<Q", _HEAP)),
    "heap address max": _with(_ROOT + 32, _MAX),
    "heap address is the tree": _with(_ROOT + 32, struct.pack("<Q", _TREE)),
    "tree magic": _with(_TREE, b"X"),
    "tree of chunks": _with(_TREE + 4, b"\x01"),
    "tree of 65535": _with(_TREE + 6, b"\xff\xff"),
    "tree child itself": _with(_TREE + 32, struct.pack("<Q", _TREE)),
    "tree child max": _with(_TREE + 32, _MAX),
    "symbols of 65535": _with(_SNOD + 6, b"\xff\xff"),
    "heap of max": _with(_HEAP + 8, _MAX),
    "heap of 2**40": _with(_HEAP + 8, struct.pack("<Q", 2**40)),
    "heap of 0": _with(_HEAP + 8, bytes(8)),
    "heap segment max": _with(_HEAP + 24, _MAX),
    "no end of names": _with(_HEAP + 8, struct.pack("<Q", 9)),
    "truncated": _FILE[:3000],
    "newest: root header magic": _LATEST.replace(b"OHDR", b"OHDX"),
    "newest: root address max": _with(36, _MAX, _LATEST),
    "newest: link version": _LATEST.replace(b"\x01\x00\x06layers", b"\x02\x00\x06layers"),
    "newest: link length": _LATEST.replace(b"\x01\x00\x06layers", b"\x01\x00\xf0layers"),
    "newest: link not utf-8": _LATEST.replace(b"\x01\x00\x06layers", b"\x01\x00\x06layer\xff"),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_damaged_files_are_opaque(name: str) -> None:
    data = _HOSTILE[name]
    assert data not in (_FILE, _LATEST)
    layout, reason = scan_or_opaque(BytesSource(data))
    assert layout.format == "opaque"
    assert reason and "\n" not in reason and len(reason) < 200


def test_a_group_within_itself_is_visited_once() -> None:
    child = _LATEST.index(b"\x01\x00\x05kinds") + 8
    root = struct.unpack_from("<Q", _LATEST, 36)[0]
    data = _with(child, struct.pack("<Q", root), _LATEST)
    assert len(found(scanned(data, "hdf5"))) == 6


def test_a_file_that_is_mostly_something_else_is_opaque() -> None:
    data = _FILE + bytes(2**20)
    layout, reason = scan_or_opaque(BytesSource(data))
    assert layout.format == "opaque" and "most of the data" in reason


def test_continuations_do_not_cycle() -> None:
    at = _ROOT + 16
    body = struct.pack("<HHBxxxQQ", 16, 16, 0, at, 24)
    with pytest.raises(FormatError, match="cycle"):
        hdf5.scan(BytesSource(_with(at, body)))


def run_mutations(count: int, seed: int) -> int:
    """The number of mutated files still read as tensors; all others were refused in one line."""
    rng = random.Random(seed)
    accepted = 0
    for _ in range(count):
        accepted += survives(mutate(rng.choice((_FILE, _LATEST, _CHUNKED)), rng), hdf5.scan) is not None
    return accepted


def test_mutated_files_are_read_or_refused() -> None:
    assert run_mutations(400, seed=1) > 30


@pytest.mark.campaign
def test_mutated_files_at_length() -> None:
    assert run_mutations(20_000, seed=2) > 1_000


def test_mutated_keras_zips_are_read_or_refused() -> None:
    rng = random.Random(3)
    data = keras(load("latest"))
    for _ in range(300):
        survives(mutate(data, rng), keras_zip.scan)
