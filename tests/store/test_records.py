"""``@tensor``: written, read back, and refused where it is not what a writer makes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theta.dtypes import DTYPES
from theta.errors import CorruptError, NewerFormatError, ThetaError, TooLargeError
from theta.store.format import tensor_tree
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import (
    CHUNK,
    MAX_RECORD,
    Chunk,
    Layer,
    Record,
    chunk_lengths,
    parse,
    value_digest,
)
from theta.store.read import tensor_records

DTYPE = st.sampled_from([name for name, entry in DTYPES.items() if entry.bits >= 8])


@st.composite
def records(draw: st.DrawFn) -> Record:
    dtype = draw(DTYPE)
    shape = draw(st.lists(st.integers(0, 1 << 12), max_size=3).map(tuple))
    layers: list[Layer] = []
    for number in range(draw(st.integers(1, 4))):
        base = draw(st.none() | st.integers(0, number - 1)) if number else None
        lower = draw(st.lists(st.integers(0, 5), max_size=3).map(tuple))
        layers.append(Layer(draw(st.sampled_from(["dense", "delta", "rows"])), base, draw(DTYPE), lower))
    lengths = chunk_lengths(dtype, shape) if DTYPES[dtype].nbytes(shape) < 1 << 28 else []
    shape = shape if lengths else (0,)
    layers = [*layers[:-1], Layer("dense", layers[-1].base, dtype, shape)] if lengths else []
    chunks = tuple(Chunk(length, bytes([number % 256]) * 32) for number, length in enumerate(lengths))
    names = st.sampled_from(
        [tensor_tree.file_name(layer, chunk) for layer in range(4) for chunk in (0, 1, 9999, 10000)]
    )
    files = draw(st.dictionaries(names, st.binary(min_size=20, max_size=20).map(bytes.hex), max_size=5))
    return Record(dtype, shape, tuple(layers), chunks, files)


@given(records())
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert parse(record.data()) == record
    assert parse(record.data()).digest == record.digest
    assert json.loads(record.data())["theta"] == 1


def test_the_digest_is_what_the_specification_says() -> None:
    """Fixed for ever: another digest would make every stored value a different one."""
    import hashlib

    chunk = hashlib.sha256(b"\x01\x02").digest()
    wanted = hashlib.sha256(b"theta value 1\nu8 [2]\n" + (2).to_bytes(8, "little") + chunk).hexdigest()
    assert value_digest("u8", (2,), [Chunk(2, chunk)]) == wanted
    assert value_digest("u8", (1, 2), [Chunk(2, chunk)]) != wanted
    assert value_digest("i8", (2,), [Chunk(2, chunk)]) != wanted
    assert value_digest("u8", (2,), [Chunk(1, chunk), Chunk(1, chunk)]) != wanted


@given(DTYPE, st.lists(st.integers(0, 1 << 22), max_size=3).map(tuple))
def test_chunks_are_whole_rows_and_fill_the_tensor(dtype: str, shape: tuple[int, ...]) -> None:
    total = DTYPES[dtype].nbytes(shape)
    if total > 1 << 34:
        return
    lengths = chunk_lengths(dtype, shape)
    assert sum(lengths) == total
    assert all(0 < length <= CHUNK for length in lengths)
    if shape and total and total // shape[0] <= CHUNK:
        assert all(length % (total // shape[0]) == 0 for length in lengths)


GOOD: dict[str, Any] = {
    "theta": 1,
    "dtype": "f32",
    "shape": [2, 3],
    "layers": [{"codec": "dense", "base": None, "dtype": "f32", "shape": [2, 3]}],
    "chunks": [[24, "0" * 64]],
    "files": {"0.0000": "1" * 40},
}
LAYER = GOOD["layers"][0]
BAD: dict[str, Any] = {
    "no object": [],
    "null": None,
    "a text": "x",
    "no version": {key: value for key, value in GOOD.items() if key != "theta"},
    "version 0": GOOD | {"theta": 0},
    "a version in words": GOOD | {"theta": "1"},
    "a key too many": GOOD | {"x": 1},
    "a key too few": {key: value for key, value in GOOD.items() if key != "files"},
    "an unknown dtype": GOOD | {"dtype": "f33"},
    "a dtype that is no text": GOOD | {"dtype": ["f32"]},
    "a shape that is no list": GOOD | {"shape": 6},
    "a shape of words": GOOD | {"shape": "23"},
    "a negative extent": GOOD | {"shape": [-2, -3]},
    "a boolean extent": GOOD | {"shape": [True, 6]},
    "an extent of 2^63": GOOD | {"shape": [2**63]},
    "65 dimensions": GOOD | {"shape": [1] * 64 + [6]},
    "another shape": GOOD | {"shape": [2, 4]},
    "no chunk": GOOD | {"chunks": []},
    "an empty chunk": GOOD | {"chunks": [[24, "0" * 64], [0, "0" * 64]]},
    "a long chunk": GOOD | {"shape": [CHUNK + 4], "dtype": "u8", "chunks": [[CHUNK + 4, "0" * 64]]},
    "a negative chunk": GOOD | {"chunks": [[28, "0" * 64], [-4, "0" * 64]]},
    "a chunk of one": GOOD | {"chunks": [[24]]},
    "a chunk of three": GOOD | {"chunks": [[24, "0" * 64, 0]]},
    "another cut": GOOD | {"chunks": [[12, "0" * 64], [12, "0" * 64]]},
    "a short digest": GOOD | {"chunks": [[24, "0" * 63]]},
    "a digest of no digits": GOOD | {"chunks": [[24, "z" * 64]]},
    "spaces in a digest": GOOD | {"chunks": [[24, "0 " * 32]]},
    "a layer on itself": GOOD | {"layers": [LAYER | {"base": 0}]},
    "a layer on a higher one": GOOD | {"layers": [LAYER | {"base": 1}, LAYER]},
    "five layers": GOOD | {"layers": [LAYER] * 5},
    "a codec that is no text": GOOD | {"layers": [LAYER | {"codec": 1}]},
    "a layer without a shape": GOOD | {"layers": [{k: v for k, v in LAYER.items() if k != "shape"}]},
    "files that are a list": GOOD | {"files": ["0.0000"]},
    "a short id": GOOD | {"files": {"0.0000": "1" * 39}},
    "a last layer of another dtype": GOOD | {"layers": [LAYER | {"dtype": "i32"}]},
    "a last layer of another shape": GOOD | {"layers": [LAYER | {"shape": [6]}]},
    "no layer": GOOD | {"layers": []},
    "layers that are a text": GOOD | {"layers": "x"},
    "layers that are a number": GOOD | {"layers": 1},
    "chunks that are an object": GOOD | {"chunks": {"a": 1}},
    "files that are a text": GOOD | {"files": "0.0000"},
    "half a byte": GOOD | {"dtype": "f4", "shape": [3], "chunks": [[2, "0" * 64]]},
}


def test_the_good_one_is_good() -> None:
    assert parse(json.dumps(GOOD).encode()).nbytes == 24


@pytest.mark.parametrize("what", BAD)
def test_a_malformed_record_is_refused(what: str) -> None:
    with pytest.raises(CorruptError) as caught:
        parse(json.dumps(BAD[what]).encode())
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"NaN",
        b"1e999",
        json.dumps(GOOD).replace("[2, 3]", "[2.0, 3]").encode(),
        json.dumps(GOOD).replace('"theta": 1', '"theta": 1, "theta": 1').encode(),
        json.dumps(GOOD).replace("[2, 3]", f"[{'9' * 5000}]").encode(),
        b" " * (MAX_RECORD + 1),
    ],
    ids=range(11),
)
def test_text_that_is_no_record_is_refused(text: bytes) -> None:
    with pytest.raises(CorruptError) as caught:
        parse(text)
    assert len(str(caught.value)) < 400


def test_a_newer_version_is_named() -> None:
    with pytest.raises(NewerFormatError):
        parse(json.dumps(GOOD | {"theta": 2, "more": 1}).encode())


@given(st.binary(max_size=30), st.integers(0, 400))
def test_damage_is_refused_or_read_never_a_crash(junk: bytes, at: int) -> None:
    data = json.dumps(GOOD).encode()
    try:
        found = parse(data[:at] + junk + data[at + len(junk) // 2 :])
    except ThetaError:
        return
    assert parse(found.data()) == found


FILES = {"0.0000": "aa" * 20, "1.0000": "bb" * 20, "2.0000": "cc" * 20}
STEPS = tuple(
    Layer(codec, base, "bf16", (4,)) for codec, base in (("dense/1", None), ("steps/1", 0), ("steps/1", 1))
)


@pytest.mark.parametrize(
    ("files", "dtype", "found"),
    [
        (("@tensor", "0.0000", "1.0000"), "bf16", 1),
        (("@tensor", "0.0000"), "bf16", 0),
        (("@tensor", "0.0000", "1.0000"), "f16", None),  # the same files, and not the same value
        (("@tensor", "0.0000", "1.0000", "2.0000"), "bf16", None),  # the value itself is no layer below it
        (("@tensor", "1.0000"), "bf16", None),
        (("@tensor",), "bf16", None),
        ((), "bf16", None),
    ],
)
def test_a_layer_is_known_by_the_files_of_another_tree(
    files: tuple[str, ...], dtype: str, found: int | None
) -> None:
    record = Record("bf16", (4,), STEPS, (Chunk(8, bytes(32)),), FILES)
    tree = {name: FILES.get(name, "dd" * 20) for name in files}
    value = Line("w", dtype, (4,), "", "")
    assert tensor_records.layer_with(record, tree, value) == found
    other = tree | {name: "ee" * 20 for name in tree if name == "0.0000"}
    if "0.0000" in tree:
        assert tensor_records.layer_with(record, other, value) is None


def test_a_record_that_no_reader_takes_is_not_written() -> None:
    chunks = tuple(Chunk(1, bytes([number % 256]) * 32) for number in range(61_000))
    files = {tensor_tree.file_name(0, number): "0" * 40 for number in range(61_000)}
    layer = Layer("dense/1", None, "bytes", (61_000,))
    whole = Record("bytes", (61_000,), (layer,), chunks, files)
    assert parse(whole.data()) == whole
    more = Record("bytes", (70_000,), (layer,), chunks * 2, files)
    with pytest.raises(TooLargeError, match="122000 chunks"):
        more.data()
