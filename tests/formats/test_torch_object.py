"""Torch files of nested objects: CPython's unpickler and theta's reader both return what was written."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.helpers import scanned
from tests.formats.test_writers import check_literals, write
from theta.errors import FormatError
from theta.formats.layout import BytesSource, Tensor, TensorSpec, View
from theta.formats.pickle_files.pickle_scan import scan_pickles
from theta.formats.torch import torch_writer, torch_zip


class Array:
    """A tensor of four elements, that is what its number says."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and other.number == self.number

    def __hash__(self) -> int:
        return self.number


class Point(NamedTuple):
    """A tuple that is more than one."""

    x: int


def file_of(root: object) -> bytes:
    """The file of ``root``; equal arrays share a storage, whose bytes are their number."""
    numbers: dict[int, int] = {}
    values: dict[str, bytes] = {}

    def stored(name: str, value: Any) -> tuple[int, TensorSpec]:
        if not isinstance(value, Array):
            raise FormatError(f"{name}: {type(value)}")
        key = numbers.setdefault(value.number, len(numbers))
        values.setdefault(name, bytes([value.number]) * 16)
        return key, TensorSpec(name, "f32", (2, 2))

    plan = torch_writer.plan_object(root, stored)
    check_literals(plan)
    return write(plan, values)


def by_cpython(data: bytes) -> Any:
    """The object as Python unpickles it; whatever torch would call is a stand-in of this test."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return lambda storage, offset, shape, strides, *_: Array(storage)
            if (module, name) == ("torch", "FloatStorage"):
                return name
            assert (module, name) in (("collections", "OrderedDict"), ("_codecs", "encode"))
            return super().find_class(module, name)

        def persistent_load(self, pid: Any) -> int:
            assert (pid[0], pid[1], pid[3], pid[4]) == ("storage", "FloatStorage", "cpu", 4)
            return archive.read(f"archive/data/{pid[2]}")[0]

    return Unpickler(io.BytesIO(archive.read("archive/data.pkl"))).load()


def by_theta(data: bytes) -> Any:
    """The object as theta reads it."""

    def tensor(extent: Tensor, view: View) -> Array:
        assert (view.dtype, view.shape, view.strides, view.offset) == ("f32", (2, 2), (2, 1), 0)
        return Array(data[extent.offset])

    return torch_zip.read_object(BytesSource(data), tensor)


def check(root: object) -> bytes:
    data = file_of(root)
    assert data == file_of(root)
    for found in (by_cpython(data), by_theta(data)):
        assert found == root
        assert repr(type(found)) == repr(type(root))
    assert scan_pickles(BytesSource(data)).worst() == "safe"
    return data


def optimizer() -> dict[str, Any]:
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "foreach": None, "amsgrad": False}
    state = {
        n: {"step": Array(3 * n), "exp_avg": Array(3 * n + 1), "exp_avg_sq": Array(3 * n + 2)} for n in (0, 1)
    }
    return {"state": state, "param_groups": [group | {"params": [0, 1]}]}


def test_the_state_of_an_optimizer() -> None:
    data = check(optimizer())
    names = [tensor.name for tensor in scanned(data, "torch").tensors]
    assert names == [f"state.{n}.{part}" for n in (0, 1) for part in ("step", "exp_avg", "exp_avg_sq")]


@pytest.mark.parametrize(
    "root",
    [
        {},
        [],
        (),
        Array(7),
        {"last_epoch": 3, "_last_lr": [0.1], "verbose": False, "name": None},
        (3, tuple(range(2**32 - 625, 2**32)), None),
        {"a": [(), [[]], {}], 1: True, None: -0.0, 2.5: -(2**31), "raw": b"\x00\xff"},
        {"large": [2**31, -(2**31) - 1, 2**63, 2**64 - 1, -(2**200)], "é\n\ud800": "\udcff"},
        {"inf": float("inf"), "small": 5e-324},
        OrderedDict([("b", Array(1)), ("a", OrderedDict())]),
    ],
)
def test_objects_of_plain_values(root: object) -> None:
    check(root)


_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
) | st.integers(0, 255).map(Array)
_KEYS = st.text(max_size=3) | st.integers()


@given(
    st.recursive(
        _LEAVES,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(_KEYS, inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_object_comes_back(root: object) -> None:
    try:
        data = file_of(root)
    except FormatError as error:
        assert "named" in str(error)  # two arrays of one name: {"1": ..., 1: ...}
        return
    assert by_cpython(data) == by_theta(data) == root


def test_one_array_of_two_names_is_stored_once() -> None:
    data = check({"embed": Array(1), "head": Array(1), "other": Array(2)})
    layout = scanned(data, "torch")
    assert [tensor.name for tensor in layout.tensors] == ["embed", "other"]
    assert [(view.name, view.tensor) for view in layout.views] == [("head", "embed")]


def test_versions_of_modules_stay_with_a_state_dict() -> None:
    state = OrderedDict([("w", Array(1))])
    state._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    data = file_of(state)
    for found in (by_cpython(data), by_theta(data)):
        assert found._metadata == {"": {"version": 1}}


def test_scalars_of_numpy_are_numbers_and_other_mappings_dicts() -> None:
    root = {"lr": np.float64(0.1), "n": np.int32(3), "on": np.bool_(True), "d": defaultdict(list, a=[1])}
    found = by_cpython(file_of(root))
    assert found == {"lr": 0.1, "n": 3, "on": True, "d": {"a": [1]}}
    assert [type(value) for value in found.values()] == [float, int, bool, dict]


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def test_depth_has_an_end_and_so_has_an_object_that_holds_itself() -> None:
    check(nested(90))
    itself: list[Any] = []
    itself.append(itself)
    for root in (nested(200), itself):
        with pytest.raises(FormatError, match="nested too deeply"):
            file_of(root)


@pytest.mark.parametrize(
    "root",
    [
        {"set": {1}},
        {"f": print},
        {(1, 2): 3},
        {"point": Point(1)},
        {"big": 2**2100},
        {"a": Array(1), "b": {"c": Array(2)}, "b.c": Array(3)},
    ],
)
def test_what_is_not_plain_is_refused(root: object) -> None:
    with pytest.raises(FormatError):
        file_of(root)


@pytest.mark.parametrize(
    "root", [print, np.float32, OrderedDict, Exception("x"), {frozenset(): 1}, slice(1, 2), complex(1, 2)]
)
def test_objects_of_other_classes_are_not_read(root: object) -> None:
    """The pickles of other writers may hold anything; nothing of it is called."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": root}, 2))
    with pytest.raises(FormatError, match="plain"):
        by_theta(buffer.getvalue())


def test_what_a_pickle_shares_is_shared_and_never_multiplied() -> None:
    level: list[Any] = []
    for _ in range(60):
        level = [level, level]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(level, 2))
    found = by_theta(buffer.getvalue())
    assert found[0] is found[1]
    loop: list[Any] = []
    loop.append(loop)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(loop, 2))
    with pytest.raises(FormatError, match="nested too deeply"):
        by_theta(buffer.getvalue())
