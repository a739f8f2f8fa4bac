"""Parts of lazy tensors: what numpy's indexing gives, out of the chunks that have it and no others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import theta
from tests.api.conftest import BIG, MODEL, Story, same
from theta.errors import FormatError
from theta.formats import values
from theta.formats.layout import BytesSource
from theta.formats.values import Strided
from theta.store.read.stored_tensor import StoredTensor

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@pytest.fixture(scope="module")
def checkpoint(story: Story) -> Iterator[theta.Checkpoint]:
    with theta.open(story.repo.path) as repo:
        yield repo[f"HEAD:{MODEL}"]


def lying(array: np.ndarray[Any, Any], offset: int) -> Strided:
    """``array`` in a file of bytes, its strides kept."""
    base = array
    while base.base is not None:
        base = base.base
    first = array.__array_interface__["data"][0] - base.__array_interface__["data"][0] if base.size else 0
    data = b"\xff" * offset + base.tobytes() + b"\xff" * 3
    extent = (offset, offset + base.nbytes)
    return Strided(BytesSource(data), "i32", array.shape, array.strides, offset + first, extent)


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """An array, perhaps transposed or a part of another, and one basic index after the other."""
    shape = draw(SHAPES)
    array = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    if draw(st.booleans()):
        array = array.T
    if draw(st.booleans()) and array.ndim:
        array = np.broadcast_to(array[:, None], (array.shape[0], 3, *array.shape[1:]))
    keys, left = [], array
    for _ in range(draw(st.integers(1, 3))):
        keys.append(draw(arrays.basic_indices(left.shape, allow_newaxis=True, max_dims=8)))
        left = np.asarray(left[keys[-1]])
    return array, keys


@given(questions(), st.integers(1, 40))
def test_parts_are_those_of_numpy(question: tuple[np.ndarray[Any, Any], list[Any]], limit: int) -> None:
    """Whatever is asked for, and however small the blocks are that are read at once."""
    array, keys = question
    part, expected = lying(array, 5), array
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "CHUNK", 4 * limit)
        patch.setattr(values, "_WINDOW", 8 * limit)
        for key in keys:
            part, expected = part[key], np.asarray(expected[key])
            assert part.shape == expected.shape
            assert part.nbytes == expected.nbytes
            found = part.array()
            assert same(found, np.ascontiguousarray(expected).reshape(expected.shape))
            assert part.tobytes() == expected.tobytes()
            found[...] = 0  # a new array, which may be changed


def touched(shape: tuple[int, ...], itemsize: int, rows: int, key: Any) -> list[int]:
    """The chunks that hold an element of ``key``, of a tensor that is cut every ``rows`` rows."""
    places = np.arange(math.prod(shape)).reshape(shape)[key].reshape(-1)
    chunk = rows * math.prod(shape[1:])
    return sorted(set((places // chunk).tolist()))


PARTS: dict[str, Any] = {
    "rows of one chunk": np.s_[10:20],
    "a row": np.s_[2999],
    "an element": np.s_[1400, 7],
    "rows over a border": np.s_[690:705],
    "far rows": np.s_[::1500],
    "far rows backwards": np.s_[::-1499, ::2],
    "a column of some rows": np.s_[700:720, 3],
    "a column": np.s_[:, 3],
    "columns backwards": np.s_[::-1, ::-7],
    "nothing": np.s_[5:5],
    "all": np.s_[...],
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("revision", ["HEAD", "HEAD~1"])
def test_no_other_chunk_is_decoded(
    story: Story, monkeypatch: pytest.MonkeyPatch, name: str, revision: str
) -> None:
    """Each chunk that holds a part of it is decoded once, and nothing else is."""
    decoded: list[int] = []
    real = StoredTensor._decoded

    def counting(tensor: StoredTensor, number: int) -> memoryview:
        assert tensor.line.name == BIG
        decoded.append(number)
        return real(tensor, number)

    monkeypatch.setattr(StoredTensor, "_decoded", counting)
    array = (story.second if revision == "HEAD" else story.first)[BIG]
    with theta.open(story.repo.path) as repo:
        tensor = repo[f"{revision}:{MODEL}"][BIG]
        part = tensor[PARTS[name]]
        assert (tensor.shape, tensor.nbytes, part.dtype) == (array.shape, array.nbytes, array.dtype)
        assert decoded == []
        assert same(part.numpy(), np.asarray(array[PARTS[name]]))
    assert sorted(decoded) == touched(array.shape, 4, (4 << 20) // 6000, PARTS[name])


def test_indices_that_are_not_basic_are_refused(checkpoint: theta.Checkpoint) -> None:
    tensor = checkpoint["three"]
    not_basic: list[Any] = [[0, 1], True, "a", np.array([True, False, True]), 1.0, (0, [1])]
    for key in not_basic:
        with pytest.raises(IndexError, match="numpy"):
            tensor[key]
    outside: list[Any] = [3, -4, (0, 0, 0, 0), (..., ...)]
    for key in outside:
        with pytest.raises(IndexError):
            tensor[key]
    with pytest.raises(ValueError, match="zero"):
        tensor[::0]


def test_a_tensor_is_a_sequence_of_its_rows(checkpoint: theta.Checkpoint, story: Story) -> None:
    tensor = checkpoint["three"]
    assert len(tensor) == 3
    assert [row.shape for row in tensor] == [(4, 5)] * 3
    assert same(np.stack([np.asarray(row) for row in tensor]), story.second["three"])
    assert (tensor[1].ndim, tensor[1].size, tensor[1].name) == (2, 20, "three")
    with pytest.raises(TypeError, match="without axes"):
        len(checkpoint["scalar"])


@settings(max_examples=20)
@given(st.data())
def test_a_part_outside_of_its_storage_is_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(-3, 30))
    step = data.draw(st.integers(-4, 12))
    part = Strided(BytesSource(bytes(40)), "i32", (3,), (step * 4,), start, (4, 36))
    inside = all(
        start + step * 4 * number >= 4 and start + step * 4 * number + 4 <= 36 for number in range(3)
    )
    if inside:
        assert part.array().tolist() == [0, 0, 0]
    else:
        with pytest.raises(FormatError, match="storage"):
            part.array()


def test_an_array_far_larger_than_the_file_is_refused() -> None:
    """Strides of 0 spell a terabyte in four bytes."""
    part = Strided(BytesSource(bytes(4)), "i32", (1 << 20, 1 << 18), (0, 0), 0, (0, 4))
    with pytest.raises(FormatError, match="far fewer bytes"):
        part.array()
    assert part[0, :3].array().tolist() == [0, 0, 0]


@settings(max_examples=30)
@given(key=arrays.basic_indices((3, 4, 5), allow_newaxis=True, max_dims=6))
def test_parts_of_a_committed_tensor(checkpoint: theta.Checkpoint, story: Story, key: Any) -> None:
    for name in ("three", "half", "eighth"):
        part = np.asarray(story.second[name][key])
        assert same(checkpoint[name][key].numpy(), np.ascontiguousarray(part).reshape(part.shape))
