"""The layout: what a valid one is, and where its skeleton lies."""

from __future__ import annotations

import pytest

from theta.errors import FormatError
from theta.formats.layout import MAX_NAME_BYTES, BytesSource, Layout, Tensor


def _layout(*tensors: Tensor, size: int = 100) -> Layout:
    return Layout("test", size, tensors)


def test_gaps_and_extents_tile_the_file() -> None:
    layout = _layout(
        Tensor("a", "f32", (2,), 10, 8),
        Tensor("empty", "f32", (0, 4), 18, 0),
        Tensor("b", "u8", (), 18, 1),
        Tensor("c", "bytes", (5,), 90, 5),
    )
    layout.validate()
    assert list(layout.gaps()) == [(0, 10), (19, 71), (95, 5)]
    pieces = sorted([*layout.gaps(), *((t.offset, t.length) for t in layout.tensors if t.length)])
    assert [start for start, _ in pieces] == [0, *(start + length for start, length in pieces)][:-1]


def test_a_file_without_tensors_is_all_skeleton() -> None:
    assert list(_layout().gaps()) == [(0, 100)]
    assert list(_layout(size=0).gaps()) == []


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("", "u8", (1,), 0, 1), "empty name"),
        (Tensor("\ud800", "u8", (1,), 0, 1), "valid unicode"),
        (Tensor("x" * (MAX_NAME_BYTES + 1), "u8", (1,), 0, 1), "limit"),
        (Tensor("a", "f128", (1,), 0, 16), "unknown dtype"),
        (Tensor("a", "u8", (1,), -1, 1), "before the file"),
        (Tensor("a", "u8", (2,), 0, 1), "1 bytes"),
        (Tensor("a", "u8", (-1,), 0, -1), "impossible shape"),
        (Tensor("a", "u8", (2**40, 2**40, 0), 0, 0), "impossible shape"),
        (Tensor("a", "u8", (1,) * 65, 0, 1), "dimensions"),
        (Tensor("a", "f4", (1,), 0, 0), "whole bytes"),
        (Tensor("a", "u8", (101,), 0, 101), "end at byte 101"),
    ],
)
def test_a_bad_tensor_is_refused(tensor: Tensor, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        _layout(tensor).validate()


def test_overlaps_disorder_and_equal_names_are_refused() -> None:
    first, second = Tensor("a", "u8", (4,), 0, 4), Tensor("b", "u8", (4,), 3, 4)
    for tensors in ((first, second), (Tensor("b", "u8", (4,), 8, 4), first)):
        with pytest.raises(FormatError, match="overlaps"):
            _layout(*tensors).validate()
    with pytest.raises(FormatError, match="two tensors"):
        _layout(first, Tensor("a", "u8", (1,), 10, 1)).validate()


def test_a_source_refuses_to_read_outside() -> None:
    source = BytesSource(b"abc")
    assert source.read(1, 2) == b"bc"
    for offset, length in ((-1, 1), (0, 4), (4, 0), (1, -1)):
        with pytest.raises(FormatError):
            source.read(offset, length)
