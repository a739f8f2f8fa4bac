"""Writers of zip containers: what is planned is read by theta, by numpy and by ``zipfile``."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.formats.helpers import scanned
from theta.dtypes import DTYPES, name_of, numpy_dtype
from theta.errors import FormatError
from theta.formats import gguf, safetensors, writers
from theta.formats.archives import npz, zipped
from theta.formats.derived import arguments, derive
from theta.formats.layout import BytesSource, Layout, TensorSpec, nbytes
from theta.formats.plan import Plan
from theta.formats.torch import torch_writer


def write(plan: Plan, values: dict[str, bytes]) -> bytes:
    """The planned file with ``values``."""
    buffer = bytearray(plan.layout.size)
    for start, data in plan.literals:
        buffer[start : start + len(data)] = data
    for tensor in plan.layout.tensors:
        buffer[tensor.offset : tensor.end] = values[tensor.name]
    for field in plan.layout.derived:
        buffer[field.offset : field.end] = derive(field, arguments(field, BytesSource(bytes(buffer))))
    return bytes(buffer)


def values_of(specs: Sequence[TensorSpec]) -> dict[str, bytes]:
    """Some bytes for every tensor."""
    rng = np.random.default_rng(0)
    return {s.name: rng.integers(0, 2, nbytes(s.name, s.dtype, s.shape), np.uint8).tobytes() for s in specs}


def check_literals(plan: Plan) -> None:
    """The literals of a plan are those of its layout."""
    assert [(start, len(data)) for start, data in plan.literals] == list(plan.layout.literals())


def found(layout: Layout, data: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name -> dtype, shape and bytes."""
    return {t.name: (t.dtype, t.shape, data[t.offset : t.end]) for t in layout.tensors}


_NUMPY = ["bool", "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f16", "f32", "f64", "c64"]
_TORCH = [*_NUMPY, "bf16", "f8_e4m3", "f8_e5m2", "f8_e8m0", "f8_e4m3fnuz", "f8_e5m2fnuz"]
_SHAPES: list[tuple[int, ...]] = [(), (0,), (3,), (2, 3), (2, 0, 4), (70_000,)]


def test_npz_is_what_numpy_reads() -> None:
    specs = [TensorSpec(f"{dtype}/{shape}", dtype, shape) for dtype in _NUMPY for shape in _SHAPES]
    plan = npz.plan(specs)
    check_literals(plan)
    values = values_of(specs)
    data = write(plan, values)
    assert found(scanned(data, "npz"), data) == {s.name: (s.dtype, s.shape, values[s.name]) for s in specs}
    with np.load(io.BytesIO(data)) as loaded:
        assert set(loaded) == {spec.name for spec in specs}
        for spec in specs:
            array = loaded[spec.name]
            assert (array.dtype, array.shape) == (numpy_dtype(spec.dtype), spec.shape)
            assert array.tobytes() == values[spec.name]


def test_torch_is_what_theta_reads() -> None:
    """``data/check_torch.py`` checks that ``torch.load(weights_only=True)`` reads it too."""
    specs = [TensorSpec(f"{dtype}.{shape}é\n", dtype, shape) for dtype in _TORCH for shape in _SHAPES]
    plan = torch_writer.plan(specs)
    check_literals(plan)
    values = values_of(specs)
    data = write(plan, values)
    layout = scanned(data, "torch")
    assert found(layout, data) == {s.name: (s.dtype, s.shape, values[s.name]) for s in specs}
    assert not layout.views
    assert all(tensor.offset % torch_writer.ALIGNMENT == 0 for tensor in layout.tensors)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.read("archive/version") == b"3\n"


@pytest.mark.parametrize("write_plan", [npz.plan, torch_writer.plan])
def test_bytes_become_uint8_and_no_tensors_are_a_file_too(write_plan: object) -> None:
    assert callable(write_plan)
    plan = write_plan([TensorSpec("a", "bytes", (5,))])
    data = write(plan, {"a": b"hello"})
    layout = scanned(data, plan.layout.format)
    assert found(layout, data) == {"a": ("u8", (5,), b"hello")}
    empty = write(write_plan([]), {})
    assert zipfile.ZipFile(io.BytesIO(empty)).testzip() is None


@pytest.mark.parametrize(
    ("write_plan", "specs"),
    [
        (npz.plan, [TensorSpec("a", "bf16", (1,))]),
        (npz.plan, [TensorSpec("a", "f4", (2,))]),
        (npz.plan, [TensorSpec("a", "f32", (1,)), TensorSpec("b", "u8", ()), TensorSpec("a", "f32", (1,))]),
        (npz.plan, [TensorSpec("a\0", "f32", (1,))]),
        (npz.plan, [TensorSpec("x" * 65_536, "f32", (1,))]),
        (npz.plan, [TensorSpec("a", "f32", (2**62, 2))]),
        (npz.plan, [TensorSpec("a", "f32", (-1,))]),
        (torch_writer.plan, [TensorSpec("a", "f4", (2,))]),
        (torch_writer.plan, [TensorSpec("a", "f6_e2m3", (4,))]),
        (torch_writer.plan, [TensorSpec("a", "u8", (1,)), TensorSpec("a", "u8", (1,))]),
        (torch_writer.plan, [TensorSpec("a", "f32", (2**62, 2))]),
        (torch_writer.plan, [TensorSpec("", "f32", (1,))]),
        (gguf.plan, [TensorSpec("a", "u8", (1,))]),
        (gguf.plan, [TensorSpec("a", "f32", (1,) * 5)]),
        (gguf.plan, [TensorSpec("", "f32", (1,))]),
        (gguf.plan, [TensorSpec("\ud800", "f32", (1,))]),
        (gguf.plan, [TensorSpec("a", "f32", (1,)), TensorSpec("a", "f32", (1,))]),
    ],
)
def test_what_cannot_be_written_is_refused(write_plan: object, specs: list[TensorSpec]) -> None:
    assert callable(write_plan)
    with pytest.raises(FormatError):
        write_plan(specs)


def test_files_over_4_gigabytes_are_planned_with_64_bits() -> None:
    specs = [TensorSpec(f"t{number}", "f32", (2**30,)) for number in range(3)]
    for plan in (npz.plan(specs), torch_writer.plan(specs)):
        assert plan.layout.size > 12 * 2**30
        pieces = dict(plan.literals)

        class Sparse:
            size = plan.layout.size
            literals = pieces

            def read(self, offset: int, length: int) -> bytes:
                for start, data in self.literals.items():
                    if start <= offset and offset + length <= start + len(data):
                        return data[offset - start : offset - start + length]
                data = bytearray(length)  # type: ignore[assignment]
                for start, literal in self.literals.items():
                    first, last = max(start, offset), min(start + len(literal), offset + length)
                    if first < last:
                        data[first - offset : last - offset] = literal[first - start : last - start]  # type: ignore[index]
                return bytes(data)

        members = {member.name: member for member in zipped.read_members(Sparse())}
        for tensor in plan.layout.tensors:
            (member,) = [m for m in members.values() if m.payload <= tensor.offset < m.payload + m.size]
            assert member.stored and member.payload + member.size == tensor.end


_SPECS = st.lists(
    st.builds(
        TensorSpec,
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
        st.sampled_from(_NUMPY),
        st.lists(st.integers(0, 3), max_size=4).map(tuple),
    ),
    max_size=6,
    unique_by=lambda spec: spec.name,
)


def _leads_out(name: str) -> bool:
    """Return whether a member of that name is outside of the folder on POSIX or on Windows."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return posix.is_absolute() or bool(windows.anchor) or ".." in (*posix.parts, *windows.parts)


@given(_SPECS)
@example([TensorSpec("/", "u8", ()), TensorSpec("a", "u8", ())])
@example([TensorSpec("..\\b", "u8", (1,))])
def test_round_trip(specs: list[TensorSpec]) -> None:
    values = values_of(specs)
    inside = [spec for spec in specs if not _leads_out(f"{spec.name}.npy")]
    if inside != specs:
        with pytest.raises(FormatError, match="no member can be named"):
            npz.plan(specs)
    for plan, planned in ((npz.plan(inside), inside), (torch_writer.plan(specs), specs)):
        check_literals(plan)
        data = write(plan, values)
        if planned:
            expected = {s.name: (s.dtype, s.shape, values[s.name]) for s in planned}
            assert found(scanned(data, plan.layout.format), data) == expected


def test_the_numpy_names_are_all_of_numpys() -> None:
    assert {name for name, entry in DTYPES.items() if entry.numpy_name} - {"bytes"} == set(_TORCH)


def test_gguf_is_what_theta_reads() -> None:
    """``data/check_gguf.py`` checks that the ``gguf`` package reads it too."""
    kinds = ["f32", "f16", "bf16", "f64", "i8", "i16", "i32", "i64"]
    specs = [TensorSpec(f"{kind}.{shape}", kind, shape) for kind in kinds for shape in _SHAPES]
    plan = gguf.plan(specs, {"general.name": "a model", "b": "é"})
    check_literals(plan)
    values = values_of(specs)
    data = write(plan, values)
    assert found(scanned(data, "gguf"), data) == {s.name: (s.dtype, s.shape, values[s.name]) for s in specs}
    with pytest.raises(FormatError, match="empty"):
        gguf.plan([], {"": "x"})


def test_one_function_plans_every_format() -> None:
    specs = [TensorSpec("b", "f32", (2, 3)), TensorSpec("a", "i64", ()), TensorSpec("c", "f32", (0,))]
    values = values_of(specs)
    for name in writers.WRITERS:
        plan = writers.plan(name, specs, {"key": "value"})
        check_literals(plan)
        data = write(plan, values)
        layout = scanned(data, name)
        assert found(layout, data) == {s.name: (s.dtype, s.shape, values[s.name]) for s in specs}
        assert layout.tensors == plan.layout.tensors
        assert set(layout.derived) == set(plan.layout.derived)
    with pytest.raises(FormatError, match="does not write hdf5"):
        writers.plan("hdf5", specs)
    plan = writers.plan("safetensors", specs, {"key": "value"})
    assert safetensors.read_metadata(plan.literals[0][1]) == {"key": "value"}


@pytest.mark.parametrize("name", [safetensors.NAME, torch_writer.NAME, npz.NAME])
def test_a_file_in_memory_has_the_arrays_as_they_are(name: str) -> None:
    """A scalar has no dimension, and an array need not be contiguous."""
    rng = np.random.default_rng(3)
    arrays = {f"a{shape}": rng.standard_normal(shape) for shape in _SHAPES} | {
        "turned": rng.integers(0, 9, (4, 3), np.int16).T,
        "every other": np.arange(10, dtype=np.uint8)[::2],
    }
    file = writers.in_memory(name, arrays)
    data = bytes(file.read(0, file.size))
    expected = {key: (name_of(one.dtype), one.shape, one.tobytes()) for key, one in arrays.items()}
    assert found(scanned(data, name), data) == expected
