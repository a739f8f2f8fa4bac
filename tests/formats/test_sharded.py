"""Sharded models: the index, and cutting a model into shards."""

from __future__ import annotations

import json

import pytest

from theta.errors import FormatError
from theta.formats import sharded
from theta.formats.layout import TensorSpec
from theta.formats.sharded import ShardIndex, ShardName

_ONE, _TWO = sharded.shard_names(2)


def text(weight_map: object, **others: object) -> bytes:
    """An index."""
    return json.dumps({"metadata": {"total_size": 3}, "weight_map": weight_map} | others).encode()


def test_an_index_is_read() -> None:
    weight_map = {"b": _TWO, "a": _ONE, "é": _ONE, "x" * 1000: _TWO}
    assert sharded.read_index(text(weight_map)) == ShardIndex(weight_map, 3)
    assert sharded.read_index(b" \n" + text(weight_map) + b"\n ").shards == (_ONE, _TWO)
    assert sharded.read_index(sharded.write_index(weight_map, 3)) == ShardIndex(weight_map, 3)
    assert sharded.read_index(text({})).shards == ()


def test_the_index_is_written_as_hugging_face_does() -> None:
    expected = '{\n  "metadata": {\n    "total_size": 7\n  },\n  "weight_map": {\n    "a": "m"\n  }\n}\n'
    assert sharded.write_index({"a": "m"}, 7).decode() == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"total_size": 5, "total_parameters": 2, "é": ["x", {"y": None}]}, 5),
        ({"total_size": 5.0}, 5),
        ({"total_size": 5.5}, None),
        ({"total_size": -5}, None),
        ({"total_size": True}, None),
        ({"total_size": 2**70}, None),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)
def test_metadata_may_be_anything_small(metadata: object, expected: int | None) -> None:
    assert sharded.read_index(text({"a": _ONE}, metadata=metadata, other=metadata)).total_size == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"metadata":{}}',
        text({"a": _ONE})[:-1],
        text({"a": _ONE}) + b"x",
        b'{"weight_map":{},"weight_map":{}}',
        b'{"weight_map":{"a":"x","a":"y"}}',
        b'{"weight_map":{"a":"x"},"metadata":{"a":1,"a":2}}',
        b'{"weight_map":{"a":"x"},"metadata":NaN}',
        b'{"weight_map":{"a":"x"},"metadata":' + b"[" * 60_000 + b"}",
        b'{"weight_map":{"a":"x"},"metadata":"' + b"x" * 70_000 + b'"}',
        b'{"weight_map":{"a":"x"},"metadata":' + b"9" * 5_000 + b"}",
        text(None),
        text(["a"]),
        text({"a": 1}),
        text({"a": {"b": "c"}}),
        text({"a": ""}),
        text({"a": "."}),
        text({"a": ".."}),
        text({"a": "../x"}),
        text({"a": "/etc/passwd"}),
        text({"a": "sub/x"}),
        text({"a": "sub\\x"}),
        text({"a": "C:x"}),
        text({"a": ".git"}),
        text({"a": "x."}),
        text({"a": "x "}),
        text({"a": "x\0"}),
        text({"a": "x\n"}),
        text({"a": "x" * 256}),
        text({"a": "\ud800"}),
    ],
)
def test_hostile_indexes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        sharded.read_index(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def spec(name: str, count: int) -> TensorSpec:
    """A tensor of ``count`` bytes."""
    return TensorSpec(name, "u8", (count,))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([4], [[4]]),
        ([4, 6], [[4, 6]]),
        ([4, 7], [[4], [7]]),
        ([4, 11, 6], [[11], [4, 6]]),
        ([11], [[11]]),
        ([0, 10, 0], [[0, 10, 0]]),
        ([10, 1, 9, 1], [[10], [1, 9], [1]]),
    ],
)
def test_cutting_into_shards(sizes: list[int], expected: list[list[int]]) -> None:
    shards = sharded.plan_shards([spec(str(number), size) for number, size in enumerate(sizes)], 10)
    assert [[item.shape[0] for item in shard] for shard in shards] == expected


def test_no_shard_is_empty_by_limit() -> None:
    with pytest.raises(FormatError, match="at least one byte"):
        sharded.plan_shards([spec("a", 1)], 0)


def test_shard_names() -> None:
    assert sharded.shard_names(1) == ("model.safetensors",)
    assert sharded.shard_names(2, "pytorch_model", ".bin")[1] == "pytorch_model-00002-of-00002.bin"
    assert sharded.parse_shard_name(_TWO) == ShardName("model", 2, 2, ".safetensors")
    assert sharded.parse_shard_name("a-b-00001-of-00010.gguf") == ShardName("a-b", 1, 10, ".gguf")
    for name in (
        "model.safetensors",
        "m-0001-of-0002.x",
        "m-00003-of-00002.x",
        "m-00000-of-00002.x",
        "m-00001-of-00002",
    ):
        assert sharded.parse_shard_name(name) is None
    with pytest.raises(FormatError, match="limit"):
        sharded.shard_names(100_000)
