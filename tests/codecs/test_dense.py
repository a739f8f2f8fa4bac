"""dense/1: every dtype, every bit pattern, and hostile blobs."""

import contextlib
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from theta.codecs import codec, dense, frames, names, planes
from theta.codecs.base import word_size
from theta.dtypes import DTYPES
from theta.errors import CodecError, NewerFormatError
from theta_native import byte_planes
from theta_native.coded import surveys

Words = NDArray[Any]
ALL = sorted(DTYPES)


def weights(dtype: str, size: int, seed: int = 0) -> bytes:
    """Plausible raw bytes of ``size`` words: normal weights for floats, small numbers otherwise."""
    rng = np.random.default_rng(seed)
    width = word_size(dtype)
    if DTYPES[dtype].kind in ("float", "complex") and width > 1:
        values = rng.normal(0, 0.02, size)
        if dtype == "bf16":
            return (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        return values.astype({2: "<f2", 4: "<f4", 8: "<f8"}[width]).tobytes()
    return rng.geometric(0.2, size).astype(f"<u{width}").tobytes()


def roundtrip(raw: bytes, dtype: str) -> bytes:
    blob = dense.encode(raw, dtype)
    assert bytes(dense.decode(blob, dtype, len(raw))) == raw
    assert dense.encode(memoryview(raw), dtype) == blob
    return blob


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("size", [0, 1, 3, 1000, 70_000])
def test_every_dtype_comes_back(dtype: str, size: int) -> None:
    roundtrip(weights(dtype, size), dtype)


@pytest.mark.parametrize("dtype", ALL)
@given(data=st.data())
def test_any_bits_come_back(dtype: str, data: st.DataObject) -> None:
    width = word_size(dtype)
    words = data.draw(st.lists(st.binary(min_size=width, max_size=width), max_size=60))
    roundtrip(b"".join(words) * data.draw(st.integers(1, 40)), dtype)


@pytest.mark.parametrize(
    ("dtype", "bound"), [("bf16", 0.672), ("f16", 0.853), ("f32", 0.836), ("f8_e4m3", 0.9), ("i64", 0.07)]
)
def test_size_of_weights(dtype: str, bound: float) -> None:
    raw = weights(dtype, 1 << 19)
    assert len(roundtrip(raw, dtype)) <= bound * len(raw)


def test_a_f32_that_holds_bf16_is_small() -> None:
    raw = (np.frombuffer(weights("bf16", 1 << 19), "<u2").astype("<u4") << 16).tobytes()
    assert len(roundtrip(raw, "f32")) <= 0.335 * len(raw)


def test_repeated_rows_cost_one_row() -> None:
    row = np.random.default_rng(1).integers(0, 2**16, 4096, np.uint16)
    raw = np.tile(row, 256).tobytes()
    assert len(roundtrip(raw, "bf16")) < 0.02 * len(raw)


def test_zeros_cost_their_header() -> None:
    assert len(roundtrip(bytes(1 << 22), "f32")) == 1 + 4 * 5 + 4


def test_noise_costs_only_the_header() -> None:
    raw = np.random.default_rng(2).bytes(1 << 20)
    assert len(roundtrip(raw, "f32")) == 1 + 4 * 5 + len(raw)


def test_threads_give_the_same_bytes() -> None:
    raw = weights("bf16", 1 << 18)
    blobs: list[bytes] = []
    threads = [threading.Thread(target=lambda: blobs.append(dense.encode(raw, "bf16"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(blobs) == {dense.encode(raw, "bf16")}


def section(entries: list[tuple[int, bytes]], width: int) -> bytes:
    head = b"".join(struct.pack("<BI", method, len(payload)) for method, payload in entries)
    return bytes([width]) + head + b"".join(payload for _, payload in entries)


ZERO = (2, b"\0")
BOMB = zstandard.ZstdCompressor().compress(bytes(1 << 24))
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))
GOOD = zstandard.ZstdCompressor().compress(bytes(100))
HOSTILE = {
    "empty": b"",
    "wrong width": section([ZERO] * 4, 4),
    "cut header": section([ZERO, ZERO], 2)[:8],
    "cut payload": section([ZERO, (0, bytes(100))], 2)[:-1],
    "trailing": section([ZERO, ZERO], 2) + b"\0",
    "length lies": bytes([2]) + struct.pack("<BIBI", 2, 1, 0, 2**32 - 1) + bytes(101),
    "unknown method": section([ZERO, (9, b"\0")], 2),
    "short raw": section([ZERO, (0, bytes(99))], 2),
    "long constant": section([ZERO, (2, b"\0\0")], 2),
    "bomb": section([ZERO, (1, BOMB)], 2),
    "no content size": section([ZERO, (1, UNSIZED)], 2),
    "two frames": section([ZERO, (1, GOOD + GOOD)], 2),
    "no frame": section([ZERO, (1, b"not zstd at all")], 2),
    "cut frame": section([ZERO, (1, GOOD[:-2])], 2),
    "no rans": section([ZERO, (3, b"\x08\x02\x01")], 2),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_blobs_are_refused(name: str) -> None:
    with pytest.raises(CodecError):
        dense.decode(HOSTILE[name], "bf16", 200)


def test_an_empty_plane_is_raw_only() -> None:
    with pytest.raises(CodecError):
        dense.decode(section([ZERO, ZERO], 2), "bf16", 0)


@pytest.mark.parametrize("nbytes", [-2, 3])
def test_impossible_sizes_are_refused(nbytes: int) -> None:
    with pytest.raises(CodecError):
        dense.decode(dense.encode(b"", "bf16"), "bf16", nbytes)


@given(st.data())
def test_mutations_give_an_error_or_bytes_of_the_right_size(data: st.DataObject) -> None:
    blob = bytearray(dense.encode(weights("f32", 300), "f32"))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        assert len(dense.decode(bytes(blob), "f32", 1200)) == 1200


def test_rans_is_not_decoded_inside_itself() -> None:
    out = np.empty(10_000, np.uint8)
    plane = np.random.default_rng(4).integers(0, 2, 10_000, np.uint8)
    blob = memoryview(planes.encode_section([plane]))
    assert blob[0] == planes.RANS
    assert planes.decode_section(blob, 0, [out]) == len(blob)
    np.testing.assert_array_equal(out, plane)
    with pytest.raises(CodecError):
        frames.read_section(blob, 0, [out.size], frames.decoded)
    with pytest.raises(CodecError):
        planes.decode_section(memoryview(bytes([blob[0], blob[1] + 1]) + bytes(blob[2:]) + b"0"), 0, [out])


def repeats(words: Words) -> bool:
    parts = byte_planes.split(words, rotate=False)
    (found,) = surveys.survey(words, parts, [0, words.size], [frames.slices(words.size)])
    return planes.has_repeats(found)


def test_has_repeats() -> None:
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 2**32, 1 << 18, np.uint32)
    assert not repeats(noise)
    assert repeats(np.tile(noise[: 1 << 14], 16))
    assert not repeats(noise[:3])
    assert not repeats(np.frombuffer(weights("bf16", 1 << 20), "<u2"))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_equal_words_are_stored_as_one_byte_a_plane(kind: type) -> None:
    """The entropy of a sample, which is rounded, told of most of them that they are not."""
    for size in (1, 2, 11, 12, 22, 99, 3000, 8191, 8193, 70_001):
        (blob,) = dense.encode_each([np.full(size, 5, kind)], rotate=False)
        width = np.dtype(kind).itemsize
        assert len(blob) == 1 + 6 * width
        assert [blob[1 + 5 * k] for k in range(width)] == [frames.CONSTANT] * width


CONTENTS: Mapping[str, Callable[[np.random.Generator, int, type], Words]] = {
    "normal": lambda dice, size, kind: (
        (dice.standard_normal(size) * 99).astype(np.int8).view("u1").astype(kind)
    ),
    "any": lambda dice, size, kind: dice.integers(0, np.iinfo(kind).max, size, kind),
    "tiled": lambda dice, size, kind: np.tile(dice.integers(0, 255, size // 16 + 1).astype(kind), 16)[:size],
    "constant": lambda dice, size, kind: np.full(size, dice.integers(0, 200), kind),
    "partly zero": lambda dice, size, kind: (
        dice.integers(0, 9, size, kind) * (np.arange(size, dtype=kind) < size // 3)
    ),
}


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(CONTENTS)), st.integers(0, 40_000)), min_size=1, max_size=5),
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64]),
    st.booleans(),
    st.integers(0, 99),
)
def test_together_with_others_or_alone_and_by_numpy_or_kernel_a_chunk_has_the_same_bytes(
    contents: list[tuple[str, int]], kind: type, rotate: bool, seed: int
) -> None:
    dice = np.random.default_rng(seed)
    chunks = [np.ascontiguousarray(CONTENTS[name](dice, size, kind)) for name, size in contents]
    rotate = rotate and kind is not np.uint8
    found = []
    for by_kernel in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            for module in (byte_planes, surveys):
                patch.setattr(module, "pays", lambda *_, is_paying=by_kernel: is_paying)
            found += [dense.encode_each(chunks, rotate), [dense.encode_words(one, rotate) for one in chunks]]
    assert all(one == found[0] for one in found)
    for blob, chunk in zip(found[0], chunks, strict=True):
        back = dense.decode_words(blob, chunk.itemsize, chunk.size, rotate)
        np.testing.assert_array_equal(back, chunk)


def test_the_registry() -> None:
    assert codec("dense/1") is dense
    assert all(name == codec(name).NAME for name in names())
    with pytest.raises(NewerFormatError):
        codec("dense/99")
