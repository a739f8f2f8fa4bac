"""The torch readers on files that torch 2.13 wrote (``data/make_torch.py``), and on hostile ones."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.helpers import Beside, mutate, rebuild, scanned, survives
from theta.dtypes import numpy_dtype
from theta.errors import FormatError
from theta.formats import scan, scan_or_opaque, values
from theta.formats.derived import prove
from theta.formats.layout import BytesSource, Layout, Tensor, View
from theta.formats.torch import torch_dcp, torch_legacy, torch_zip

DATA = Path(__file__).parent / "data"
ZIPS = ["values", "checkpoint", "module", "script", "tensor", "protocol5"]


def load(name: str, seed: int = 1) -> bytes:
    """A file that torch wrote."""
    return (DATA / f"{name}.{seed}.pt").read_bytes()


def extents(layout: Layout, data: bytes) -> dict[str, bytes]:
    """Name -> bytes."""
    return {tensor.name: data[tensor.offset : tensor.end] for tensor in layout.tensors}


def array(layout: Layout, data: bytes, name: str) -> Any:
    """Return the array that torch would name ``name``."""
    tensors = {tensor.name: tensor for tensor in layout.tensors}
    views = {view.name: view for view in layout.views}
    view = views.get(name)
    tensor = tensors[view.tensor if view else name]
    flat = np.frombuffer(data[tensor.offset : tensor.end], numpy_dtype(tensor.dtype))
    if view is None:
        return flat.reshape(tensor.shape)
    strides = [step * flat.itemsize for step in view.strides]
    return np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides)


@pytest.mark.parametrize("name", ZIPS)
def test_new_values_in_the_old_skeleton_are_the_file_that_torch_wrote(name: str) -> None:
    """CRCs and serialization id are derived, so nothing but the extents differs (promise P3)."""
    first, second = load(name, 1), load(name, 2)
    assert first != second
    layout = scanned(first, "torch")
    assert rebuild(layout, first, extents(scanned(second, "torch"), second)) == second


def test_names_dtypes_and_shapes() -> None:
    layout = scanned(load("values"), "torch")
    found = {tensor.name: (tensor.dtype, tensor.shape) for tensor in layout.tensors}
    kinds = {name: dtype for name, (dtype, _) in found.items() if name.startswith("kinds.")}
    assert len(kinds) == 20
    assert kinds.pop("kinds.complex128") == "bytes"
    assert kinds["kinds.float8_e8m0fnu"] == "f8_e8m0" and kinds["kinds.uint64"] == "u64"
    assert "bytes" not in kinds.values()
    assert found["base"] == ("f32", (2, 3)) and "tied" not in found and "transposed" not in found
    assert found["alone.transposed"] == ("f32", (2, 3))
    assert found["slice"] == ("i64", (10,)) and found["expanded"] == ("f32", (1,))
    assert found["scalar"] == ("f32", ()) and found["empty"] == ("f32", (0, 3))
    assert found["parameter"] == ("f32", (4,))
    assert found["sparse.1.0"] == ("i64", (2, 3)) and found["sparse.1.1"] == ("f32", (3,))
    assert set(layout.views) == {
        View("tied", "base", "f32", (2, 3), (3, 1)),
        View("transposed", "base", "f32", (3, 2), (1, 3)),
        View("alone.transposed", "alone.transposed", "f32", (3, 2), (1, 3)),
        View("slice", "slice", "i64", (3,), (1,), 2),
        View("expanded", "expanded", "f32", (5,), (0,)),
    }


@pytest.mark.parametrize(("name", "form"), [("values", "torch"), ("legacy", "torch-legacy")])
@pytest.mark.parametrize("seed", [1, 2])
def test_views_are_what_torch_sees(name: str, form: str, seed: int) -> None:
    data = load(name, seed)
    layout = scanned(data, form)
    assert array(layout, data, "slice").tolist() == [2 * seed, 3 * seed, 4 * seed]
    assert array(layout, data, "expanded").tolist() == [seed] * 5
    assert array(layout, data, "scalar") == seed
    base = array(layout, data, "base")
    assert np.array_equal(array(layout, data, "transposed"), base.T)
    assert np.array_equal(array(layout, data, "tied"), base)
    assert set(np.unique(array(layout, data, "kinds.bfloat16"))) <= {0, 1}


def test_nested_names() -> None:
    names = [tensor.name for tensor in scanned(load("checkpoint"), "torch").tensors]
    assert names[:3] == ["model.0.weight", "model.0.bias", "model.1.weight"]
    assert "optimizer.state.3.exp_avg_sq" in names
    assert names == [tensor.name for tensor in scanned(load("protocol5"), "torch").tensors]
    for name in ("module", "script"):
        assert [tensor.name for tensor in scanned(load(name), "torch").tensors] == [
            *("0.weight", "0.bias", "1.weight", "1.bias"),
            *("1.running_mean", "1.running_var", "1.num_batches_tracked"),
        ]
    assert [tensor.name for tensor in scanned(load("tensor"), "torch").tensors] == ["tensor"]


def test_a_file_without_crcs_is_restored_without() -> None:
    first, second = load("nocrc", 1), load("nocrc", 2)
    claimed = scan(BytesSource(first))
    layout = prove(claimed, BytesSource(first))
    assert len(layout.derived) < len(claimed.derived)
    assert rebuild(layout, first, extents(scan(BytesSource(second)), second)) == second


def test_legacy() -> None:
    data = load("legacy")
    layout = scanned(data, "torch-legacy")
    assert len(layout.tensors) == 27 and not layout.derived
    changed = rebuild(layout, data, {"base": struct.pack("<6f", *range(6))})
    again = scanned(changed, "torch-legacy")
    assert array(again, changed, "transposed").tolist() == [[0, 3], [1, 4], [2, 5]]


def test_distributed_checkpoints_are_zips_in_a_row() -> None:
    first, second = load("distributed", 1), load("distributed", 2)
    layout = scanned(first, "torch-distributed")
    assert [(t.name, t.dtype, t.shape) for t in layout.tensors] == [
        ("1", "f32", (3, 4)),
        ("2", "f32", (3,)),
        ("3", "i64", (5,)),
    ]
    assert array(scanned(second, "torch-distributed"), second, "3").tolist() == [0, 2, 4, 6, 8]
    assert first != second
    assert rebuild(layout, first, extents(scanned(second, "torch-distributed"), second)) == second


def test_distributed_checkpoints_are_named_by_their_metadata() -> None:
    data = (DATA / "story" / "1.dist.distcp").read_bytes()
    metadata = (DATA / "story" / "1.dist.metadata").read_bytes()

    def names(file: str, metadata: bytes) -> list[str]:
        return [t.name for t in scan(Beside(data, file, {".metadata": metadata})).tensors]

    assert names("__0_0.distcp", metadata) == ["big", "small"]
    assert names("__1_0.distcp", metadata) == ["0", "1"]
    assert names("__0_0.distcp", metadata[:-1]) == ["0", "1"]
    assert names("__0_0.distcp", b"") == ["0", "1"]
    twice = metadata.replace(b"small", b"big\0\0")
    assert len(set(names("__0_0.distcp", twice))) == 2
    moved = pickled_metadata(("w", (0, 0), 0), ("w", (2, 0), START))
    assert names("__0_0.distcp", moved) == ["w", "w@2,0"]
    assert names("__0_0.distcp", pickled_metadata(("w", (0, 0), 0), ("w", (0, 0), START))) == ["w", "1"]


START = 17_961
"""The offset of the second part of ``1.dist.distcp``."""


def pickled_metadata(*rows: tuple[str, tuple[int, ...], int]) -> bytes:
    """``.metadata`` with names, offsets in the tensors, and offsets in the file."""

    def made(name: str, **fields: bytes) -> bytes:
        items = b"".join(dumps(key)[2:-1] + value for key, value in fields.items())
        return f"ctorch.x\n{name}\n".encode() + b")\x81}(" + items + b"ub"

    def raw(value: object) -> bytes:
        return dumps(value)[2:-1]

    pairs = b"".join(
        made("MetadataIndex", fqn=raw(name), offset=b"ctorch\nSize\n" + raw(part) + b"\x85R")
        + made("_StorageInfo", relative_path=raw("__0_0.distcp"), offset=raw(start))
        for name, part, start in rows
    )
    return b"\x80\x02" + made("Metadata", storage_data=b"}(" + pairs + b"u") + b"."


def test_zips_in_a_row_of_which_one_is_damaged_are_opaque() -> None:
    data = load("distributed")
    starts = [at for at in range(len(data)) if data[at : at + 10] == b"PK\x03\x04\0\0\x08\x08\0\0"]
    for damaged in (
        data[1:],
        data[:-1],
        data[:1240] + b"x" + data[1240:],
        data[: starts[1]] + data[starts[1] + 1 :],
    ):
        layout, _ = scan_or_opaque(BytesSource(damaged))
        assert layout.format == "opaque"
    two = archive({"a": tensor("0")}) + archive({"b": tensor("0"), "c": tensor("0", (2, 2), (1, 2))})
    layout = scanned(two, "torch-distributed")
    assert [t.name for t in layout.tensors] == ["0.a", "1.b"]
    assert layout.views == (View("1.c", "1.b", "f32", (2, 2), (1, 2)),)


# Files made by hand.


class _Storage:
    """Pickled as torch pickles a storage: by a persistent id."""

    def __init__(self, key: str, count: int, kind: str = "FloatStorage") -> None:
        self.pid = ("storage", _Name("torch", kind), key, "cpu", count)


class _Name:
    """Pickled as a global."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Made:
    """Pickled as a call of a global."""

    def __init__(self, module: str, name: str, *args: object) -> None:
        self.function, self.args = _Name(module, name), args


class _Pickler(pickle._Pickler):  # the one in Python can be taught to write any global
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, _Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, _Name):
            self.write(b"c" + obj.module.encode() + b"\n" + obj.name.encode() + b"\n")  # type: ignore[attr-defined]
        elif isinstance(obj, _Made):
            self.save(obj.function)
            self.save(obj.args)
            self.write(b"R")  # type: ignore[attr-defined]
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]
        return None


def dumps(value: object, protocol: int = 2) -> bytes:
    """``value`` as torch would pickle it."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def tensor(
    key: str,
    shape: object = (4,),
    strides: object = (1,),
    offset: object = 0,
    count: int = 4,
    kind: str = "FloatStorage",
) -> _Made:
    """A tensor as torch pickles it."""
    args = (_Storage(key, count, kind), offset, shape, strides, False, None)
    return _Made("torch._utils", "_rebuild_tensor_v2", *args)


def elements(_extent: Tensor, view: View) -> str:
    """A tensor that was read, as its name."""
    return view.tensor


@pytest.mark.parametrize("metadata", [None, {}])
def test_a_tensor_without_metadata_is_an_object(metadata: object) -> None:
    made = _Made("torch._utils", "_rebuild_tensor_v2", *tensor("0").args, metadata)
    data = archive({"a": made}, {"0": bytes(16)})
    assert torch_zip.read_object(BytesSource(data), elements) == {"a": "0"}


@pytest.mark.parametrize(
    ("function", "more"),
    [
        ("_rebuild_tensor_v2", ({"conj": True},)),
        ("_rebuild_tensor_v2", ({"neg": True},)),
        ("_rebuild_tensor_v3", (_Name("torch", "float32"), {"conj": True})),
        ("_rebuild_qtensor", ()),
    ],
)
def test_a_tensor_whose_elements_are_not_those_of_its_storage_is_no_object(function: str, more: Any) -> None:
    made = _Made("torch._utils", function, *tensor("0").args, *more)
    data = archive({"a": made}, {"0": bytes(16)})
    with pytest.raises(FormatError, match="conjugated"):
        torch_zip.read_object(BytesSource(data), elements)
    value = values.values(scanned(data, "torch"), BytesSource(data))["a"]
    if function == "_rebuild_qtensor":  # whose elements are the numbers that are stored
        assert b"".join(value.chunks()) == bytes(16)
        return
    place = value.place
    assert place is not None
    for read in (lambda: b"".join(value.chunks()), lambda: place.array()):
        with pytest.raises(FormatError, match="conjugated"):
            read()


def archive(value: object | bytes, storages: dict[str, bytes] | None = None, **members: bytes) -> bytes:
    """A zip as torch's; ``value`` is the object, or the bytes of data.pkl."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("x/data.pkl", value if isinstance(value, bytes) else dumps(value))
        for name, content in members.items():
            file.writestr(f"x/{name}", content)
        for key, content in ({"0": bytes(16)} if storages is None else storages).items():
            file.writestr(f"x/data/{key}", content)
    return buffer.getvalue()


def summary(data: bytes) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return name, dtype and shape of each tensor in a hand-made archive."""
    return [(t.name, t.dtype, t.shape) for t in scanned(data, "torch").tensors]


def test_a_hand_made_file_is_read() -> None:
    assert summary(archive({"a": tensor("0")})) == [("a", "f32", (4,))]
    big = archive({"a": tensor("0")}, byteorder=b"big")
    assert summary(big) == [("a", "bytes", (4, 4))]


_NAMELESS = [("storages.0", "bytes", (16,))]
_HOSTILE_OBJECTS: dict[str, object] = {
    "no tensors": {},
    "text": b"hello",
    "empty pickle": b"",
    "truncated": dumps({"a": tensor("0")})[:-1],
    "empty stack": b"\x80\x02.",
    "unknown opcode": b"\xff.",
    "no mark": b"t.",
    "memo never written": b"h\x05.",
    "pop of nothing": b"00.",
    "reduce of nothing": b"R.",
    "build of nothing": b"b.",
    "setitem without a key": b"}K\x01s.",
    "setitems odd": b"}(K\x01u.",
    "append to a number": b"K\x01K\x02a.",
    "negative memo": b"Np-1\n.",
    "float of text": b"Fx\n.",
    "integer of text": b"Ix\n.",
    "integer of 4 GB": b"\x8b\xff\xff\xff\xff1.",
    "text of 4 GB": b"X\xff\xff\xff\xffa.",
    "text of 2**64": b"\x8d" + b"\xff" * 8 + b"a.",
    "bytes of 2**63": b"\x8e" + b"\xff" * 7 + b"\x7fa.",
    "text not utf-8": b"X\x01\0\0\0\xff.",
    "line without an end": b"cos",
    "another storage": {"a": tensor("7")},
    "a path as key": {"a": tensor("../0")},
    "a pid that is no storage": {"a": _Made("torch._utils", "_rebuild_tensor_v2", 1, 0, (4,), (1,))},
    "rank differs": {"a": tensor("0", strides=(1, 1))},
    "negative offset": {"a": tensor("0", offset=-1)},
    "negative shape": {"a": tensor("0", shape=(-4,))},
    "shape of floats": {"a": tensor("0", shape=(4.0,))},
    "shape of text": {"a": tensor("0", shape="4")},
    "shape none": {"a": tensor("0", shape=None)},
    "shape overflow": {"a": tensor("0", shape=(2**40, 2**40), strides=(1, 1))},
    "shape of 65": {"a": tensor("0", shape=(1,) * 65, strides=(1,) * 65)},
    "too few arguments": {"a": _Made("torch._utils", "_rebuild_tensor_v2", _Storage("0", 4))},
    "function of another module": {"a": _Made("os", "_rebuild_tensor_v2", _Storage("0", 4), 0, (4,), (1,))},
    "parameter of nothing": {"a": _Made("torch._utils", "_rebuild_parameter")},
    "parameters without end": b"\x80\x02ctorch._utils\n_rebuild_parameter\nq\x00"
    + b"h\x00" * 50
    + b"N"
    + b"\x85R" * 50
    + b".",
    "name too long": {"x" * 70_000: tensor("0")},
    "deep": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "deep tuples": b"\x80\x02N" + b"\x85" * 100_000 + b".",
}


@pytest.mark.parametrize("name", _HOSTILE_OBJECTS)
def test_what_cannot_be_followed_leaves_storages_under_their_own_names(name: str) -> None:
    assert summary(archive(_HOSTILE_OBJECTS[name])) == _NAMELESS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": tensor("0", (2**61,), (1,))}, ("a", "f32", (4,))),
        ({"a": tensor("0", (2,), (2**61,))}, ("a", "f32", (4,))),
        ({"a": tensor("0", (4,), (1,), 2**61)}, ("a", "f32", (4,))),
        ({"a": tensor("0", (2, 2), (1, 1))}, ("a", "f32", (4,))),
        ({"a": tensor("0", (2, 2), (1, 2))}, ("a", "f32", (2, 2))),
        ({"a": tensor("0", (4, 1), (1, 99))}, ("a", "f32", (1, 4))),
        ({"a": tensor("0", (16,), kind="ByteStorage")}, ("a", "u8", (16,))),
        ({"a": tensor("0", kind="NoStorage")}, ("a", "bytes", (16,))),
        ({"a": tensor("0", kind="LongStorage")}, ("a", "i64", (2,))),
        ({"a": {"b": [tensor("0")]}, "c": tensor("0")}, ("a.b.0", "f32", (4,))),
        ({1: {True: tensor("0")}}, ("1.True", "f32", (4,))),
        ({None: tensor("0")}, ("#0", "f32", (4,))),
        ({2**70: tensor("0")}, ("#0", "f32", (4,))),
        ({"": tensor("0")}, ("tensor", "f32", (4,))),
        ({"s": _Made("x", "Y", tensor("0"))}, ("s.0", "f32", (4,))),
        ({"\ud800": tensor("0")}, ("?", "f32", (4,))),
    ],
)
def test_odd_objects(value: object, expected: tuple[str, str, tuple[int, ...]]) -> None:
    layout = scanned(archive(value), "torch")
    assert [(t.name, t.dtype, t.shape) for t in layout.tensors] == [expected]
    for view in layout.views:
        assert view.offset < 4 and max(view.shape) <= 16


def test_equal_names_and_a_storage_size_that_fits_no_dtype() -> None:
    value = {"a.b": tensor("0"), "a": {"b": tensor("1")}, "storages": {"1": tensor("2")}}
    data = archive(value, {"0": bytes(16), "1": bytes(16), "2": bytes(15), "3": b""})
    assert summary(data) == [
        ("a.b", "f32", (4,)),
        ("storages.1", "bytes", (16,)),
        ("storages.2", "bytes", (15,)),
        ("storages.3", "bytes", (0,)),
    ]
    taken = archive({"storages": {"1": tensor("0")}}, {"0": bytes(16), "1": bytes(4)})
    assert summary(taken) == [("storages.1", "f32", (4,)), ("storages.1~", "bytes", (4,))]


def test_a_cycle_ends() -> None:
    cycle = b"\x80\x02]q\x00h\x00a}q\x01X\x01\x00\x00\x00kh\x01sa."
    assert summary(archive(cycle)) == _NAMELESS


def test_shared_containers_do_not_multiply() -> None:
    """A pickle of 30 lists, each twice in the next, is a billion names when walked as a tree."""
    body = b"\x80\x02]q\x00"
    for number in range(1, 60):
        body += b"](h%ch%ceq%c" % (number - 1, number - 1, number)
    assert summary(archive(body + b".")) == _NAMELESS


def test_names_are_bounded_together() -> None:
    """One tensor under 60 kB of name, and 20,000 references to it."""
    inner = dumps({"n" * 15_000: [tensor("0")] * 20_000})
    layout = scanned(archive(inner), "torch")
    assert sum(len(view.name) for view in layout.views) < 20 * 2**20


@pytest.mark.parametrize(
    "data",
    [
        archive({"a": tensor("0")}).replace(b"x/data.pkl", b"x/data.pkx"),
        archive({"a": tensor("0")})[:-1],
        b"PK\x03\x04" + bytes(100),
    ],
    ids=["no pickle", "cut", "zeros"],
)
def test_other_zips_are_opaque(data: bytes) -> None:
    assert scan_or_opaque(BytesSource(data))[0].format == "opaque"


def test_a_compressed_storage_makes_the_file_opaque() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", dumps({"a": tensor("0")}))
        file.writestr("x/data/0", bytes(16))
    layout, reason = scan_or_opaque(BytesSource(buffer.getvalue()))
    assert layout.format == "opaque" and reason == "torch: the storage 'data/0' is compressed"


def test_a_wrong_crc_stays_as_it_is() -> None:
    data = archive({"a": tensor("0")})
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1) + 16
    wrong = data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + 4]) + data[at + 4 :]
    local = data.index(b"PK\x03\x04", 4) + 14
    wrong = wrong[:local] + wrong[at : at + 4] + wrong[local + 4 :]
    claimed = scan(BytesSource(wrong))
    layout = prove(claimed, BytesSource(wrong))
    assert [field.op for field in layout.derived] == ["copy"]
    assert rebuild(layout, wrong, {}) == wrong


def legacy(
    value: object, keys: object = None, storages: bytes | None = None, version: object = 1001
) -> bytes:
    """A legacy file."""
    tail = struct.pack("<q", 4) + bytes(16) if storages is None else storages
    system = {"little_endian": True}
    parts = (version, system, value, ["0"] if keys is None else keys)
    return torch_legacy.MAGIC + b"".join(dumps(part) for part in parts) + tail


def test_a_hand_made_legacy_file_is_read() -> None:
    layout = scanned(legacy({"a": tensor("0")}), "torch-legacy")
    assert [(t.name, t.dtype, t.shape) for t in layout.tensors] == [("a", "f32", (4,))]


@pytest.mark.parametrize(
    "data",
    [
        legacy({"a": tensor("0")}, version=1002),
        legacy({"a": tensor("0")}, version="1001"),
        legacy({"a": tensor("0")}, keys=["1"]),
        legacy({"a": tensor("0")}, keys=["0", "0"]),
        legacy({"a": tensor("0")}, keys=[0]),
        legacy({"a": tensor("0")}, keys="0"),
        legacy({"a": tensor("0"), "b": tensor("1")}),
        legacy({"a": tensor("0"), "b": tensor("0", kind="LongStorage")}),
        legacy({"a": tensor("0", kind="NoStorage")}),
        legacy({"a": tensor("0", count=5)}),
        legacy({"a": tensor("0", count=-1)}, storages=struct.pack("<q", -1)),
        legacy({"a": tensor("0", count=2**61)}, storages=struct.pack("<q", 2**61)),
        legacy({"a": tensor("0")}, storages=b""),
        legacy({"a": tensor("0")}, storages=struct.pack("<q", 4) + bytes(15)),
        legacy({"a": tensor("0")}, storages=struct.pack("<q", 4) + bytes(17)),
        legacy(_Made("x", "y", 1), keys=[])[:-3],
        torch_legacy.MAGIC + b"\x80",
    ],
)
def test_hostile_legacy_files_are_opaque(data: bytes) -> None:
    layout, reason = scan_or_opaque(BytesSource(data))
    assert layout.format == "opaque" and reason and "\n" not in reason


def run_mutations(count: int, seed: int) -> int:
    """The number of mutated files still read as tensors; all others were refused in one line."""
    rng = random.Random(seed)
    seeds: list[tuple[bytes, Callable[[Any], Layout]]] = [
        (
            archive({"a": tensor("0"), "b": [tensor("1", (2, 2), (2, 1))]}, {"0": bytes(16), "1": b"x" * 16}),
            torch_zip.scan,
        ),
        (load("tensor"), torch_zip.scan),
        (legacy({"a": tensor("0")}), torch_legacy.scan),
        (load("distributed"), torch_dcp.scan),
    ]
    tokens = [
        b"(",
        b"t",
        b"R",
        b"\x85",
        b"h\x00",
        b"q\x00",
        b"}",
        b"]",
        b"0",
        b"1",
        b".",
        b"K\x01",
        b"\x8a\x08",
        b"Q",
    ]
    accepted = 0
    for _ in range(count):
        data, reader = rng.choice(seeds)
        accepted += survives(mutate(data, rng, tokens), reader) is not None
    return accepted


def test_mutated_files_are_read_or_refused() -> None:
    assert run_mutations(4_000, seed=1) > 100


@pytest.mark.campaign
def test_mutated_files_at_length() -> None:
    assert run_mutations(200_000, seed=2) > 5_000


def test_a_key_called_as_an_attribute_of_a_module_is_a_name() -> None:
    assert summary(archive({"_modules": tensor("0")})) == [("_modules", "f32", (4,))]
    assert summary(archive({"_parameters": {"a": tensor("0")}})) == [("_parameters.a", "f32", (4,))]


def test_the_order_is_that_of_the_file() -> None:
    offsets = [tensor.offset for tensor in scanned(load("values"), "torch").tensors]
    assert offsets == sorted(offsets)


def test_a_zip_that_is_no_checkpoint() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("readme", b"text")
    source = BytesSource(buffer.getvalue())
    assert scan_or_opaque(source) == (scan(source), "")
    with pytest.raises(FormatError, match=r"no data\.pkl"):
        torch_zip.scan(source)
