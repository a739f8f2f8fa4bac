"""Hostile safetensors: refused in one line, and never read as tensors where the library refuses."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from theta.errors import FormatError
from theta.formats import safetensors, scan_or_opaque
from theta.formats.layout import MAX_NAME_BYTES, BytesSource
from theta.formats.safetensors import MAX_HEADER


def entry(offsets: object = (0, 4), shape: object = (4,), dtype: object = "U8") -> dict[str, object]:
    """One entry of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def build(header: object, data: bytes = bytes(4), length: int | None = None) -> bytes:
    """A file whose header is ``header`` (as JSON, or exactly these bytes) and says it is ``length`` long."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


_A = b'"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
_HUGE = 2**64
_HOSTILE: dict[str, bytes] = {
    "empty file": b"",
    "only a length": struct.pack("<Q", 2),
    "nine bytes": struct.pack("<Q", 1) + b"{",
    "length zero": build(b"{}", length=0),
    "length one": build(b"{}", length=1),
    "length beyond the file": build({"a": entry()}, length=1000),
    "length is the file's": build(b"{}", b"", length=10),
    "length over the limit": build(b"{}", length=MAX_HEADER + 1),
    "length 2**40": build(b"{}", length=2**40 - 1),
    "length 2**64-1": build(b"{}", length=2**64 - 1),
    "length 2**63": build(b"{}", length=2**63),
    "length cuts the header": build(b"{" + _A + b"}", length=20),
    "length takes data in": build(b"{" + _A + b"}", length=len(_A) + 4),
    "a space first": build(b" {" + _A + b"}"),
    "a byte order mark": build(b"\xef\xbb\xbf{" + _A + b"}"),
    "utf-16": build('{"a":1}'.encode("utf-16-le")),
    "an array": build([entry()]),
    "text": build(b'"a"'),
    "unclosed": build(b"{" + _A),
    "unclosed entry": build(b"{" + _A[:-1]),
    "two objects": build(b"{" + _A + b"}{}"),
    "text behind": build(b"{" + _A + b"}x"),
    "zero behind": build(b"{" + _A + b"}\0"),
    "vertical tab behind": build(b"{" + _A + b"}\v"),
    "comma first": build(b"{," + _A + b"}"),
    "comma last": build(b"{" + _A + b",}"),
    "no comma": build(b"{" + _A + _A.replace(b"a", b"b", 1) + b"}"),
    "no colon": build(b'{"a" {}}'),
    "a comment": build(b"{/**/" + _A + b"}"),
    "bare name": build(b'{a:{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'),
    "single quotes": build(b"{" + _A.replace(b'"', b"'") + b"}"),
    "duplicate name": build(b"{" + _A + b"," + _A + b"}"),
    "duplicate name, escaped": build(b"{" + _A + b"," + _A.replace(b"a", b"\\u0061", 1) + b"}"),
    "duplicate metadata": build(b'{"__metadata__":{},"__metadata__":{},' + _A + b"}"),
    "duplicate metadata key": build(b'{"__metadata__":{"k":"1","k":"2"},' + _A + b"}"),
    "duplicate field": build(b'{"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}'),
    "duplicate field for another": build(b'{"a":{"dtype":"U8","shape":[4],"shape":[4]}}'),
    "missing field": build({"a": {"dtype": "U8", "shape": [4]}}),
    "unknown field": build({"a": entry() | {"strides": [1]}}),
    "entry null": build(b'{"a":null}'),
    "entry array": build(b'{"a":["U8",[4],[0,4]]}'),
    "entry nested": build({"a": {"b": entry()}}),
    "empty name": build({"": entry()}),
    "name over the limit": build({"x" * (MAX_NAME_BYTES + 1): entry()}),
    "name not utf-8": build(b"{" + _A.replace(b"a", b"\xff", 1) + b"}"),
    "name overlong utf-8": build(b"{" + _A.replace(b"a", b"\xc0\xaf", 1) + b"}"),
    "name surrogate utf-8": build(b"{" + _A.replace(b"a", b"\xed\xa0\x80", 1) + b"}"),
    "name lone surrogate": build(b"{" + _A.replace(b"a", b"\\ud800", 1) + b"}"),
    "name reversed surrogates": build(b"{" + _A.replace(b"a", b"\\udc00\\ud800", 1) + b"}"),
    "name raw control": build(b"{" + _A.replace(b"a", b"\n", 1) + b"}"),
    "name raw zero": build(b"{" + _A.replace(b"a", b"\0", 1) + b"}"),
    "name bad escape": build(b"{" + _A.replace(b"a", b"\\x41", 1) + b"}"),
    "name short escape": build(b"{" + _A.replace(b"a", b"\\u41", 1) + b"}"),
    "metadata null": build(b'{"__metadata__":null,' + _A + b"}"),
    "metadata array": build(b'{"__metadata__":[],' + _A + b"}"),
    "metadata number": build(b'{"__metadata__":{"k":1},' + _A + b"}"),
    "metadata nested": build(b'{"__metadata__":{"k":{}},' + _A + b"}"),
    "metadata unclosed": build(b'{"__metadata__":{"k":"v",' + _A + b"}"),
    "metadata as tensor": build({"__metadata__": entry()}),
    "metadata lone surrogate": build(b'{"__metadata__":{"k":"\\ud800"},' + _A + b"}"),
    "dtype unknown": build({"a": entry(dtype="F128")}),
    "dtype small letters": build({"a": entry(dtype="u8")}),
    "dtype of theta": build({"a": entry(dtype="BYTES")}),
    "dtype number": build({"a": entry(dtype=8)}),
    "dtype null": build({"a": entry(dtype=None)}),
    "dtype empty": build({"a": entry(dtype="")}),
    "shape number": build({"a": entry(shape=4)}),
    "shape negative": build({"a": entry(shape=[-4])}),
    "shape minus zero": build(b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', b""),
    "shape float": build({"a": entry(shape=[4.0])}),
    "shape exponent": build(b'{"a":{"dtype":"U8","shape":[4e0],"data_offsets":[0,4]}}'),
    "shape NaN": build({"a": entry(shape=[float("nan")])}),
    "shape infinity": build({"a": entry(shape=[float("inf")])}),
    "shape true": build({"a": entry(shape=[4, True])}),
    "shape text": build({"a": entry(shape=["4"])}),
    "shape nested": build({"a": entry(shape=[[4]])}),
    "shape leading zero": build(b'{"a":{"dtype":"U8","shape":[04],"data_offsets":[0,4]}}'),
    "shape plus": build(b'{"a":{"dtype":"U8","shape":[+4],"data_offsets":[0,4]}}'),
    "shape overflow": build({"a": entry(shape=[2**62, 4])}),
    "shape wraps to four": build({"a": entry(shape=[4, 2**62 + 1])}),
    "shape overflow behind zero": build({"a": entry((0, 0), [2**40, 2**40, 0])}, b""),
    "shape bits overflow": build({"a": entry(shape=[2**61], dtype="F64")}),
    "shape of 5000 digits": build({"a": entry(shape=[10**4000])}),
    "shape of 65 dimensions": build({"a": entry(shape=[4] + [1] * 64)}),
    "shape too small": build({"a": entry(shape=[3])}),
    "shape too large": build({"a": entry(shape=[5])}),
    "odd bits": build({"a": entry((0, 1), [1], "F4")}, b"1"),
    "odd bits of six": build({"a": entry((0, 3), [3], "F6_E2M3")}, b"123"),
    "offsets one": build({"a": entry((4,))}),
    "offsets three": build({"a": entry((0, 4, 4))}),
    "offsets none": build({"a": entry(())}),
    "offsets null": build({"a": entry(None)}),
    "offsets reversed": build({"a": entry((4, 0))}),
    "offsets negative": build({"a": entry((-4, 0))}),
    "offsets float": build({"a": entry((0, 4.0))}),
    "offsets beyond the file": build({"a": entry((0, 4))}, b"123"),
    "offsets 2**64": build({"a": entry((_HUGE, _HUGE + 4))}),
    "offsets 2**63": build({"a": entry((2**63, 2**63 + 4))}),
    "a hole first": build({"a": entry((1, 5))}, bytes(5)),
    "a hole between": build({"a": entry(), "b": entry((5, 9))}, bytes(9)),
    "a hole last": build({"a": entry()}, bytes(5)),
    "data and no tensors": build({}),
    "an overlap": build({"a": entry(), "b": entry((3, 7))}, bytes(7)),
    "the same extent": build({"a": entry(), "b": entry()}),
    "nested extents": build({"a": entry(), "b": entry((1, 2), [1])}),
    "empty tensor in a hole": build({"a": entry(), "b": entry((6, 6), [0])}),
    "empty tensor inside another": build({"a": entry(), "b": entry((2, 2), [0])}),
    "NaN entry": build(b'{"a":NaN}'),
    "deep arrays": build(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep objects": build(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
}


def test_there_are_enough_of_them() -> None:
    assert len(_HOSTILE) >= 60


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_headers_are_refused_in_one_line(name: str) -> None:
    source = BytesSource(_HOSTILE[name])
    with pytest.raises(FormatError) as caught:
        safetensors.scan(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    layout, reason = scan_or_opaque(source)
    assert layout.format == "opaque"
    assert layout.tensors[0].length == source.size
    assert reason == (str(caught.value) if safetensors.detect(source) else "")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + b"[]," * 3_000_000,
        b'{"__metadata__":{"a":"' + b"\\n" * 5_000_000,
        b'{"' + b"\\u0041" * 1_500_000 + b'":1}',
        b'{"a":{"dtype":"U8","shape":[' + b"1," * 4_500_000 + b'1],"data_offsets":[0,1]}}',
        b"{" + b" " * 9_000_000,
        b'{"__metadata__":{' + b",".join(b'"%d":""' % n for n in range(12_000)) + b"}}",
    ],
    ids=["arrays", "escapes", "long name", "long shape", "spaces", "many keys"],
)
def test_a_bomb_costs_little_more_than_its_size(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_METADATA", 10_000)  # tracing memory is slow
    data = build(body)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            safetensors.scan(BytesSource(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(data) + 64 * 2**20


def _deserialize(data: bytes) -> Any:
    return deserialize(data)  # type: ignore[no-untyped-call]


def _accepted_by_the_library(data: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    try:
        return {
            name: (info["dtype"], list(info["shape"]), bytes(info["data"]))
            for name, info in _deserialize(data)
        }
    except (SafetensorError, UnicodeError, ValueError):
        return None


def check_subset(data: bytes) -> bool:
    """Return whether theta reads ``data`` as tensors; then the library must read the same."""
    try:
        layout = safetensors.scan(BytesSource(data))
    except FormatError:
        return False
    ours = {t.name: (t.dtype.upper(), list(t.shape), data[t.offset : t.end]) for t in layout.tensors}
    assert ours == _accepted_by_the_library(data)
    return True


_SEEDS = [
    save(
        {
            "w": np.arange(6, dtype=np.float32).reshape(2, 3),
            "b": np.zeros((), np.int8),
            "e": np.zeros((0, 4), np.float64),
        },
        {"format": "pt"},
    ),
    build({"a": entry(), "b": entry((4, 6), [1], "F16"), "c": entry((6, 7), [2], "F4")}, bytes(7)),
    build(b"{" + _A + b" , " + _A.replace(b"a", b"\\u00e9", 1).replace(b"0,4", b"4,8") + b"}\n", bytes(8)),
]
_TOKENS = [
    b"0",
    b"4",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b'"',
    b"\\",
    b":",
    b"-",
    b" ",
    b"\x00",
    b"\xff",
    b"e",
    b".",
]
_TOKENS += [b"F4", b"F64", b"BF16", b'"shape":', b'"dtype":', b"\\u0061", b"18446744073709551616", b"null"]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """``data`` with a few random edits, mostly in the header, whose length is often put right again."""
    buffer = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(buffer)) if rng.random() < 0.2 else rng.randrange(8, max(9, len(buffer) - 8))
        kind = rng.randrange(4)
        if kind == 0:
            buffer[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            token = rng.choice(_TOKENS)
            buffer[at : at + rng.choice((0, len(token)))] = token
        elif kind == 2:
            del buffer[at : at + rng.randint(1, 4)]
        else:
            start = rng.randrange(8, len(buffer))
            buffer[at:at] = buffer[start : start + rng.randint(1, 60)]
    end = buffer.rfind(b"}")
    if rng.random() < 0.7 and end > 8:
        buffer[:8] = struct.pack("<Q", end - 7 + rng.choice((0, 0, 0, 1)))
    return bytes(buffer)


def run_mutations(count: int, seed: int) -> int:
    """Check ``count`` mutated files; the number that theta accepted."""
    rng = random.Random(seed)
    return sum(check_subset(mutate(rng.choice(_SEEDS), rng)) for _ in range(count))


def test_what_theta_accepts_the_library_accepts() -> None:
    assert all(check_subset(seed) for seed in _SEEDS)
    assert run_mutations(20_000, seed=1) > 100


@pytest.mark.campaign
def test_what_theta_accepts_the_library_accepts_at_length() -> None:
    assert run_mutations(1_000_000, seed=2) > 5_000


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_headers_are_within_the_library(name: str) -> None:
    assert not check_subset(_HOSTILE[name])


@given(st.binary(max_size=200))
def test_random_bytes_never_escape(data: bytes) -> None:
    layout, _ = scan_or_opaque(BytesSource(data))
    assert layout.size == len(data)
    check_subset(struct.pack("<Q", len(data)) + b"{" + data)
