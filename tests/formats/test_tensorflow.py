"""TensorFlow's checkpoints: files that TensorFlow wrote, and tables made by hand."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from tests.formats.helpers import Beside, mutate, rebuild, scanned, survives
from theta.errors import FormatError
from theta.formats import scan, scan_or_opaque, tensorflow
from theta.formats.derived import derive
from theta.formats.fields import Derived
from theta.formats.layout import BytesSource
from theta.store.files.file_source import FileSource

STORY = Path(__file__).parent / "data" / "story"


def masked(data: bytes) -> bytes:
    """LevelDB's checksum of ``data``."""
    return derive(Derived("crc32c-masked", 0, 4, ()), [data])


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def entry(
    kind: int, shape: tuple[int, ...], offset: int, size: int, crc: bytes = b"crc!", shard: int = 0
) -> bytes:
    dims = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) for n in shape))
    return (
        b"\x08" + varint(kind) + b"\x12" + varint(len(dims)) + dims + b"\x18" + varint(shard)
        + b"\x20" + varint(offset) + b"\x28" + varint(size) + b"\x35" + crc
    )  # fmt: skip


def block(*pairs: tuple[bytes, bytes], restarts: int = 1) -> bytes:
    rows = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in pairs)
    return rows + bytes(4) * restarts + struct.pack("<I", restarts)


def table(
    *entries: tuple[bytes, bytes], header: bytes = b"\x08\x01\x1a\x02\x08\x01", kind: bytes = b"\0"
) -> bytes:
    """An index with one block of entries."""
    content = block((b"", header), *entries) + kind
    data = content + masked(content)
    meta_at = len(data)
    meta = block() + b"\0"
    data += meta + masked(meta)
    top_at = len(data)
    top = block((b"~", varint(0) + varint(len(content) - 1))) + b"\0"
    data += top + masked(top)
    handles = varint(meta_at) + varint(len(meta) - 1) + varint(top_at) + varint(len(top) - 1)
    return data + handles.ljust(40, b"\0") + tensorflow.MAGIC


GOOD = table((b"a", entry(1, (2, 3), 0, 24)), (b"b", entry(9, (), 32, 8)))


def test_the_index_that_tensorflow_wrote() -> None:
    data = (STORY / "1.variables.index").read_bytes()
    layout = scanned(data, "tensorflow-index")
    assert [tensor.name for tensor in layout.tensors] == [
        "_CHECKPOINTABLE_OBJECT_GRAPH",
        "big/.ATTRIBUTES/VARIABLE_VALUE",
        "note/.ATTRIBUTES/VARIABLE_VALUE",
        "small/.ATTRIBUTES/VARIABLE_VALUE",
    ]
    assert len(layout.derived) == 3


def test_new_checksums_in_the_old_skeleton_are_the_index_that_tensorflow_wrote() -> None:
    """The checksums of the blocks follow, as in a merge by tensor."""
    old, new = ((STORY / f"{seed}.variables.index").read_bytes() for seed in (1, 2))
    layout, other = scan(BytesSource(old)), scan(BytesSource(new))
    values = {tensor.name: new[tensor.offset : tensor.end] for tensor in other.tensors}
    assert rebuild(layout, old, values) == new


def test_the_index_tells_what_the_data_is() -> None:
    with FileSource(STORY / "1.variables.data-00000-of-00001") as source:
        layout = scan(source)
        index = tensorflow.read_index(BytesSource((STORY / "1.variables.index").read_bytes()))
        assert layout.format == "tensorflow"
        assert [(t.name[:5], t.dtype, t.shape) for t in layout.tensors] == [
            ("big/.", "f32", (64, 64)),
            ("note/", "bytes", (9,)),
            ("small", "f32", (16,)),
            ("_CHEC", "bytes", (243,)),
        ]
        whole = (STORY / "1.variables.index").read_bytes()
        for item in index.entries[1:2]:
            assert whole[item.crc : item.crc + 4] == masked(source.read(item.offset, item.size))


def test_a_data_file_alone_is_bytes() -> None:
    data = (STORY / "1.variables.data-00000-of-00001").read_bytes()
    assert scan_or_opaque(BytesSource(data))[0].format == "opaque"
    for others in ({}, {"m.index": b"text" * 20}, {"m.index": GOOD[:-1]}):
        layout, reason = scan_or_opaque(Beside(data, "m.data-00000-of-00001", others))
        assert (layout.format, reason) == ("opaque", "")


def test_hand_made_tables() -> None:
    layout = scanned(GOOD, "tensorflow-index")
    assert [tensor.name for tensor in layout.tensors] == ["a", "b"]
    data = scan(Beside(bytes(40), "m.data-00000-of-00001", {"m.index": GOOD}))
    assert [(t.name, t.dtype, t.shape, t.offset) for t in data.tensors] == [
        ("a", "f32", (2, 3), 0),
        ("b", "i64", (), 32),
    ]
    assert list(data.literals()) == [(24, 8)]
    big = table((b"a", entry(1, (2, 3), 0, 24)), header=b"\x08\x01\x10\x01")
    found = scan(Beside(bytes(24), "m.data-00000-of-00001", {"m.index": big}))
    assert [(t.dtype, t.shape) for t in found.tensors] == [("bytes", (24,))]
    sliced = table((b"\xff\x01", entry(1, (2,), 0, 8)), (b"s", entry(7, (2,), 8, 5)))
    found = scan(Beside(bytes(13), "m.data-00000-of-00001", {"m.index": sliced}))
    assert [(t.name, t.dtype) for t in found.tensors] == [("slice.ff01", "f32"), ("s", "bytes")]


@pytest.mark.parametrize(
    "index",
    [
        table((b"a", entry(1, (2, 3), 30, 24))),
        table((b"a", entry(1, (2,), 0, 8)), (b"b", entry(1, (2,), 4, 8))),
        table((b"a", entry(1, (2,), 0, 8)), (b"a", entry(1, (2,), 8, 8))),
        table((b"a", entry(1, (2,), 0, 8, shard=1))),
        table(),
        table((b"a", entry(1, (0,), 0, 0))),
    ],
    ids=["beyond the end", "an overlap", "a name twice", "another shard", "empty", "no bytes"],
)
def test_an_index_that_does_not_fit_leaves_the_data_opaque(index: bytes) -> None:
    source = Beside(bytes(40), "m.data-00000-of-00001", {"m.index": index})
    layout, reason = scan_or_opaque(source)
    assert layout.format == "opaque" and reason


@pytest.mark.parametrize(
    "data",
    [
        table((b"a", entry(1, (2,), 0, 8)), kind=b"\1"),
        table((b"x" * 70_000, entry(1, (2,), 0, 8))),
        table((b"a", b"\x0b")),
        table((b"a", b"\x12\xff\xff\xff\xff\x0f")),
        table((b"a", b"\x08" + b"\xff" * 11)),
        table((b"a", b"\x08" + b"\xff" * 9 + b"\x01")),
        table((b"a", entry(1, (1,) * 65, 0, 4))),
        GOOD[:10] + GOOD[-48:],
        bytes(48) + GOOD[-8:],
        b"\xff" * 40 + GOOD[-8:],
    ],
)
def test_hostile_tables_are_refused(data: bytes) -> None:
    assert tensorflow.index_reader.detect(BytesSource(data))
    with pytest.raises(FormatError):
        tensorflow.read_index(BytesSource(data))


def run_mutations(count: int, seed: int) -> int:
    """Check ``count`` mutated indexes; the number that were read."""
    rng = random.Random(seed)
    seeds = [GOOD, (STORY / "1.variables.index").read_bytes()]
    read = 0
    for _ in range(count):
        data = mutate(rng.choice(seeds), rng)
        read += survives(data, tensorflow.index_reader.scan) is not None if len(data) >= 48 else 0
        layout, _ = scan_or_opaque(Beside(bytes(40), "m.data-00000-of-00001", {"m.index": data}))
        layout.validate()
    return read


def test_mutated_files_are_read_or_refused() -> None:
    assert run_mutations(2_000, seed=1) > 100
