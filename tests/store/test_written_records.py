"""Records as theta writes them: the fast reader and the full one agree on each text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from theta.errors import ThetaError
from theta.store.format import tensor_tree, written_records
from theta.store.format.tensor_tree import Chunk, Layer, Record

DENSE = Layer("dense/1", None, "bf16", (3, 4))
STEP = Layer("steps/1", 0, "bf16", (3, 4))
FILES = {"0.0000": "aa" * 20, "1.0000": "bb" * 20}
WRITTEN = Record("bf16", (3, 4), (DENSE, STEP), (Chunk(24, bytes(range(32))),), FILES)
TEXT = WRITTEN.data()
PIECES = [
    b'"theta": 1', b'"theta": 2', b'"theta": true', b'"dtype": "f32"', b'"dtype": "bytes"', b'"shape": [12]',
    b'"shape": [-0, 4]', b'"shape": [3, 4.0]', b'"shape": [03, 4]', b'{"codec": "delta/1", "base": 1,',
    b'"base": null', b'[24, "', b'[024, "', b'[-24, "', b"[12, ", b",\n", b"\n", b" ", b"}", b"]", b"[", b'"',
    b"{",
    b'"files": {', b'"chunks": [', b"\\u0030", b"\xc3\xa9", b"AA", b"00", b"",
    b'"0.0000": "' + b"aa" * 20 + b'"',
    b'"0.shared": "' + b"cc" * 32 + b'",\n', b',\n"chunks": [\n', b'"x": 1,\n',
]  # fmt: skip


def outcome(read: Callable[[bytes], Record], data: bytes) -> tuple[object, ...]:
    """Return the record that ``read`` finds, or its error."""
    try:
        return ("record", read(data))
    except ThetaError as error:
        return type(error), str(error), error.hint


def is_taken(data: bytes) -> bool:
    return written_records._quick(data) is not None


@pytest.mark.parametrize("digits", [40, 64])
@pytest.mark.parametrize("dtype", ["bf16", "f32", "u8", "c64"])
def test_what_theta_writes_is_read_fast(dtype: str, digits: int) -> None:
    lengths = tensor_tree.chunk_lengths(dtype, (3 << 20,))
    layers = tuple(
        Layer(codec, base, dtype, (3 << 20,)) for codec, base in (("dense/1", None), ("delta/1", 0))
    )
    chunks = tuple(Chunk(length, bytes([number]) * 32) for number, length in enumerate(lengths))
    names = [tensor_tree.file_name(layer, number) for layer in (0, 1) for number in range(len(lengths))]
    record = Record(dtype, (3 << 20,), layers, chunks, dict.fromkeys(names, "0f" * (digits // 2)))
    assert written_records._quick(record.data()) == record == tensor_tree.parse(record.data())


def test_a_scalar_is_read_fast() -> None:
    layer = Layer("dense/1", None, "f32", ())
    record = Record("f32", (), (layer,), (Chunk(4, bytes(32)),), {"0.0000": "00" * 20})
    assert written_records._quick(record.data()) == record


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"theta": 1', b'"theta": 2'),
        (b'"theta": 1', b'"theta": true'),
        (b'"theta": 1,', b'"theta": 1,\n"theta": 1,'),
        (b'"theta": 1,', b'"x": 1,\n"theta": 1,'),
        (b"[24, ", b"[12, "),
        (b"[24, ", b"[024, "),
        (b'"1.0000"', b'"0.0000"'),
        (b'"bf16", "shape": [3, 4]}\n', b'"f16", "shape": [3, 4]}\n'),
        (b'"base": 0', b'"base": 1'),
        (b'"base": 0', b'"base": -0'),
        (b'"base": 0', b'"base": 0, "base": 0'),
        (b'"shape": [3, 4],\n', b'"shape": [3, 1000000000000],\n'),
        (b'"shape": [3, 4],\n', b'"shape": [3, 4.0],\n'),
        (b"bb" * 20, b"BB" * 20),
        (b"bb" * 20, b"bb" * 21),
        (b"\n}\n}\n", b"\n}\n}\n\n"),
        (b"\n}\n}\n", b"\n}\n}}\n"),
        (b'"dtype": "bf16",\n', b'"dtype": "bytes",\n'),
    ],
)
def test_anything_else_is_left_to_the_full_reader(old: bytes, new: bytes) -> None:
    data = TEXT.replace(old, new, 1)
    assert data != TEXT
    assert not is_taken(data)
    assert outcome(written_records.read, data) == outcome(tensor_tree.parse, data)


@given(
    st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 30), st.sampled_from(PIECES)), max_size=3)
)
@example([])
def test_both_readers_agree_on_changed_texts(edits: list[tuple[int, int, bytes]]) -> None:
    data = TEXT
    for at, length, piece in edits:
        data = data[:at] + piece + data[at + length :]
    assert outcome(written_records.read, data) == outcome(tensor_tree.parse, data)


@given(st.sampled_from(PIECES), st.sampled_from(PIECES), st.integers(0, 40))
def test_both_readers_agree_where_a_piece_became_another(old: bytes, new: bytes, skipped: int) -> None:
    at = TEXT.find(old, skipped) if old else skipped
    data = TEXT if at < 0 else TEXT[:at] + new + TEXT[at + len(old) :]
    assert outcome(written_records.read, data) == outcome(tensor_tree.parse, data)


def test_a_head_of_very_many_chunks_is_not_counted_out() -> None:
    """A list of the lengths that a hostile shape demands would fill the memory."""
    data = TEXT.replace(b"[3, 4]", b"[3, 900000000000000000]")
    assert outcome(written_records.read, data) == outcome(tensor_tree.parse, data)
    assert not is_taken(data)
