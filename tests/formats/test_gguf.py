"""The GGUF reader on files of the ``gguf`` package (``data/make_gguf.py``) and on hand-made ones."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from tests.formats.helpers import mutate, rebuild, scanned, survives
from theta.errors import FormatError
from theta.formats import gguf, scan_or_opaque
from theta.formats.layout import BytesSource, Tensor

DATA = Path(__file__).parent / "data"


def load(seed: int) -> bytes:
    """A file that the gguf package wrote."""
    return (DATA / f"model.{seed}.gguf").read_bytes()


def test_the_tensors_are_where_the_gguf_package_sees_them() -> None:
    """The figures are those of ``gguf.GGUFReader`` on the same file."""
    assert scanned(load(1), "gguf").tensors == (
        Tensor("f32", "f32", (3, 5), 1216, 60),
        Tensor("f16", "f16", (2, 3, 4), 1280, 48),
        Tensor("f64", "f64", (7,), 1344, 56),
        Tensor("int8", "i8", (2, 2), 1408, 4),
        Tensor("int16", "i16", (2, 2), 1472, 8),
        Tensor("int32", "i32", (2, 2), 1536, 16),
        Tensor("int64", "i64", (2, 2), 1600, 32),
        Tensor("BF16", "bf16", (4, 256), 1664, 2048),
        Tensor("Q4_0", "bytes", (4, 144), 3712, 576),
        Tensor("Q8_0", "bytes", (4, 272), 4288, 1088),
        Tensor("Q5_1", "bytes", (4, 192), 5376, 768),
        Tensor("TQ1_0", "bytes", (4, 54), 6144, 216),
    )


def test_new_values_in_the_old_skeleton_are_the_new_file() -> None:
    first, second = load(1), load(2)
    layout = scanned(second, "gguf")
    values = {tensor.name: second[tensor.offset : tensor.end] for tensor in layout.tensors}
    assert first != second and rebuild(scanned(first, "gguf"), first, values) == second


def text(value: bytes) -> bytes:
    """A string of GGUF."""
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    """A key and its value."""
    return text(key) + struct.pack("<I", kind) + value


def info(
    name: bytes = b"a", dims: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0, rank: int | None = None
) -> bytes:
    """A tensor info; ``dims`` fastest first."""
    head = text(name) + struct.pack("<I", len(dims) if rank is None else rank)
    return head + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)


def build(
    infos: list[bytes],
    pairs: list[bytes] | None = None,
    data: bytes = bytes(16),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A file."""
    pairs = pairs or []
    tensor_count, key_count = counts or (len(infos), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, key_count) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + data


def aligned(value: int, kind: int = 4) -> bytes:
    """The pair that gives the alignment."""
    return pair(b"general.alignment", kind, struct.pack("<I", value & 0xFFFFFFFF))


def shapes(data: bytes) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return name, dtype and shape of each tensor in ``data``."""
    return [(t.name, t.dtype, t.shape) for t in scanned(data, "gguf").tensors]


def test_hand_made_files_are_read() -> None:
    assert shapes(build([info()])) == [("a", "f32", (4,))]
    assert shapes(build([info()], version=2)) == [("a", "f32", (4,))]
    assert shapes(build([info(dims=())])) == [("a", "f32", ())]
    assert shapes(build([info(dims=(2, 1, 2))])) == [("a", "f32", (2, 1, 2))]
    assert shapes(build([], data=b"")) == []
    assert shapes(build([info()], [aligned(1024)], alignment=1024)) == [("a", "f32", (4,))]
    two = [info(b"b", offset=32), info(b"a", dims=(0,), offset=32), info(b"c", offset=0)]
    assert shapes(build(two, data=bytes(48))) == [("c", "f32", (4,)), ("a", "f32", (0,)), ("b", "f32", (4,))]
    assert shapes(build([info("é/..".encode())])) == [("é/..", "f32", (4,))]


def test_a_type_from_the_future_is_bytes_up_to_the_next_tensor() -> None:
    infos = [info(b"a", kind=99), info(b"b", kind=98, offset=32)]
    assert shapes(build(infos, data=bytes(40))) == [("a", "bytes", (32,)), ("b", "bytes", (8,))]


def test_every_kind_of_value_is_passed_over() -> None:
    values = [pair(b"k%d" % kind, kind, bytes(width)) for kind, width in gguf._WIDTHS.items()]
    values.append(pair(b"text", 8, text(b"value")))
    values.append(pair(b"texts", 9, struct.pack("<IQ", 8, 2) + text(b"x") + text(b"")))
    values.append(pair(b"nested", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 5, 2) + bytes(8)))
    values.append(pair(b"none", 9, struct.pack("<IQ", 4, 0)))
    assert shapes(build([info()], values)) == [("a", "f32", (4,))]


def test_big_endian_files_are_bytes_an_element() -> None:
    head = b"GGUF" + struct.pack(">IQQ", 3, 1, 0) + struct.pack(">Q", 1) + b"a" + struct.pack(">I", 1)
    head += struct.pack(">QIQ", 4, 0, 0)
    data = head + bytes(-len(head) % 32) + bytes(16)
    assert shapes(data) == [("a", "bytes", (4, 4))]


_DEEP = struct.pack("<IQ", 9, 1) * 1000
_HOSTILE = {
    "magic only": b"GGUF",
    "23 bytes": b"GGUF" + bytes(19),
    "version 0": build([info()], version=0),
    "version 1": build([info()], version=1),
    "version 4": build([info()], version=4),
    "version max": build([info()], version=2**32 - 1),
    "version big endian 9": b"GGUF" + struct.pack(">IQQ", 9, 0, 0),
    "tensor count one more": build([info()], counts=(2, 0), data=b""),
    "tensor count max": build([info()], counts=(2**64 - 1, 0)),
    "tensor count 2**63": build([info()], counts=(2**63, 0)),
    "tensor count 100001": build([info()], counts=(100_001, 0), data=bytes(3_000_000)),
    "key count max": build([info()], counts=(1, 2**64 - 1)),
    "key count -1 as 32 bits": build([info()], counts=(1, 2**32 - 1)),
    "key count one more": build([info()], counts=(1, 1), data=b""),
    "key empty": build([info()], [pair(b"", 4, bytes(4))]),
    "key of 65536": build([info()], [pair(b"x" * 65_536, 4, bytes(4))]),
    "key length max": build([info()], [struct.pack("<Q", 2**64 - 1) + bytes(12)]),
    "key length beyond": build([info()], [struct.pack("<Q", 60_000) + bytes(12)]),
    "key twice": build([info()], [pair(b"k", 4, bytes(4))] * 2),
    "alignment twice": build([info()], [aligned(32)] * 2),
    "value type 13": build([info()], [pair(b"k", 13, bytes(8))]),
    "value type max": build([info()], [pair(b"k", 2**32 - 1, bytes(8))]),
    "text length max": build([info()], [pair(b"k", 8, struct.pack("<Q", 2**64 - 1))]),
    "text length 2**63-1": build([info()], [pair(b"k", 8, struct.pack("<Q", 2**63 - 1))]),
    "text beyond": build([info()], [pair(b"k", 8, struct.pack("<Q", 1000))]),
    "array of max": build([info()], [pair(b"k", 9, struct.pack("<IQ", 4, 2**64 - 1))]),
    "array wraps": build([info()], [pair(b"k", 9, struct.pack("<IQ", 10, 2**61))]),
    "array of texts of max": build([info()], [pair(b"k", 9, struct.pack("<IQ", 8, 2**64 - 1))]),
    "array of arrays of max": build([info()], [pair(b"k", 9, struct.pack("<IQ", 9, 2**62))]),
    "array type 13": build([info()], [pair(b"k", 9, struct.pack("<IQ", 13, 1) + bytes(8))]),
    "arrays too deep": build([info()], [pair(b"k", 9, _DEEP)]),
    "alignment 0": build([info()], [aligned(0)]),
    "alignment 3": build([info()], [aligned(3)]),
    "alignment 2**31": build([info()], [aligned(2**31)]),
    "alignment max": build([info()], [aligned(2**32 - 1)]),
    "alignment as i32": build([info()], [aligned(32, kind=5)]),
    "alignment as text": build([info()], [pair(b"general.alignment", 8, text(b"32"))]),
    "name empty": build([info(b"")]),
    "name twice": build([info(), info(offset=32)], data=bytes(48)),
    "name not utf-8": build([info(b"\xff")]),
    "name length max": build([struct.pack("<Q", 2**64 - 1) + bytes(40)]),
    "name length 65537": build([info(b"x" * 65_537)]),
    "rank 9": build([info(dims=(1,) * 9)]),
    "rank max": build([info(rank=2**32 - 1)]),
    "dimension max": build([info(dims=(2**64 - 1,))]),
    "dimension -1 as 63 bits": build([info(dims=(2**63 - 1,))]),
    "product wraps to four": build([info(dims=(2**62 + 1, 4))]),
    "product overflow behind zero": build([info(dims=(0, 2**40, 2**40))]),
    "product overflow in blocks": build([info(dims=(2**62, 32), kind=2)]),
    "row smaller than a block": build([info(dims=(16, 2), kind=2)], data=bytes(18)),
    "row does not fill blocks": build([info(dims=(48,), kind=2)], data=bytes(36)),
    "scalar of blocks": build([info(dims=(), kind=2)], data=bytes(18)),
    "data missing": build([info()], data=b""),
    "data short": build([info()], data=bytes(15)),
    "data short by a row": build([info(dims=(32, 4), kind=2)], data=bytes(71)),
    "offset unaligned": build([info(offset=1)], data=bytes(17)),
    "offset beyond": build([info(offset=32)]),
    "offset max": build([info(offset=2**64 - 32)]),
    "offset 2**63": build([info(offset=2**63)]),
    "overlap": build([info(dims=(16,)), info(b"b", offset=32)], data=bytes(64)),
    "same offset": build([info(), info(b"b")]),
    "header cut": build([info()])[:40],
}


def test_there_are_enough_of_them() -> None:
    assert len(_HOSTILE) >= 60


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_files_are_opaque(name: str) -> None:
    source = BytesSource(_HOSTILE[name])
    layout, reason = scan_or_opaque(source)
    assert layout.format == "opaque" and layout.tensors[0].length == source.size
    assert "\n" not in reason and len(reason) < 200
    if gguf.detect(source):
        with pytest.raises(FormatError):
            gguf.scan(source)
        assert reason


def run_mutations(count: int, seed: int) -> int:
    """The number of mutated files still read as tensors; all others were refused in one line."""
    rng = random.Random(seed)
    pairs = [aligned(32), pair(b"texts", 9, struct.pack("<IQ", 8, 2) + text(b"x") + text(b"y"))]
    seeds = [
        build([info()]),
        build([info(), info(b"b", dims=(32, 2), kind=2, offset=32)], pairs, data=bytes(68)),
    ]
    return sum(survives(mutate(rng.choice(seeds), rng), gguf.scan) is not None for _ in range(count))


def test_mutated_files_are_read_or_refused() -> None:
    assert run_mutations(6_000, seed=1) > 200


@pytest.mark.campaign
def test_mutated_files_at_length() -> None:
    assert run_mutations(300_000, seed=2) > 10_000
