"""Content-defined cut points: the specification, its numpy twin, and what they are good for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theta.formats import opaque
from theta.formats.layout import BytesSource, Tensor
from theta.formats.opaque import MAX_CHUNK, MIN_CHUNK, THRESHOLD, cut
from theta_native import gear

_TABLE = [
    int.from_bytes(hashlib.sha256(b"theta gear" + bytes([value])).digest()[:8], "little")
    for value in range(256)
]


def find_twin(data: bytes, threshold: int) -> int:
    """The kernel in numpy: all hashes at once, from the sum of the specification."""
    words = np.array(_TABLE, np.uint64)[np.frombuffer(data, np.uint8)]
    count = len(data) - 63
    if count <= 0:
        return -1
    hashes = np.zeros(count, np.uint64)
    for age in range(64):
        hashes += words[63 - age : 63 - age + count] << np.uint64(age)
    hits = np.flatnonzero(hashes < np.uint64(threshold))
    return int(hits[0]) + 63 if hits.size else -1


def cut_by_the_specification(data: bytes) -> list[int]:
    """The cut points computed on the whole file at once."""
    lengths, start = [], 0
    while start < len(data):
        chunk = data[start : start + MAX_CHUNK]
        found = find_twin(chunk[MIN_CHUNK - 64 :], THRESHOLD)
        lengths.append(len(chunk) if found < 0 else MIN_CHUNK - 64 + found + 1)
        start += lengths[-1]
    return lengths


def _noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


@given(st.binary(max_size=400), st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_the_kernel_is_its_twin(data: bytes, threshold: int) -> None:
    assert gear.find(data, threshold) == find_twin(data, threshold)


def test_the_kernel_is_its_twin_on_long_data() -> None:
    data = _noise(1 << 20)
    for bits in (54, 50, 46, 44, 20):
        assert gear.find(data, 2**bits) == find_twin(data, 2**bits)


def test_a_threshold_over_64_bits_is_refused() -> None:
    for threshold in (-1, 2**64):
        with pytest.raises(ValueError, match="64 bits"):
            gear.find(b"", threshold)


@pytest.mark.parametrize(
    "size",
    [0, 1, MIN_CHUNK - 1, MIN_CHUNK, MIN_CHUNK + 1, MIN_CHUNK + 63, 2 * MIN_CHUNK, MAX_CHUNK + 5, 5 << 20],
)
@pytest.mark.parametrize("make", [_noise, bytes, lambda size: b"ab" * (size // 2) + b"a" * (size % 2)])
def test_cut_is_the_specification(size: int, make: Callable[[int], bytes]) -> None:
    data = make(size)
    lengths = list(cut(BytesSource(data)))
    assert lengths == cut_by_the_specification(data)
    assert sum(lengths) == size
    assert all(MIN_CHUNK <= length <= MAX_CHUNK for length in lengths[:-1])


def test_cut_points_are_fixed_for_ever() -> None:
    data = hashlib.shake_256(b"golden").digest(6 << 20)
    assert list(cut(BytesSource(data))) == [294056, 2270491, 1330192, 2396717]
    assert list(cut(BytesSource(bytes(9 << 20)))) == [MAX_CHUNK, MAX_CHUNK, 1 << 20]


def test_chunks_are_about_a_mebibyte() -> None:
    lengths = list(cut(BytesSource(_noise(96 << 20))))[:-1]
    assert 0.8 * 2**20 < np.mean(lengths) < 1.2 * 2**20


def test_an_insertion_changes_the_chunks_around_it_only() -> None:
    data = _noise(24 << 20, seed=3)
    edited = data[: 9 << 20] + b"inserted" + data[9 << 20 :]

    def digests(content: bytes) -> set[bytes]:
        found, start = set(), 0
        for length in cut(BytesSource(content)):
            found.add(hashlib.sha256(content[start : start + length]).digest())
            start += length
        return found

    assert len(digests(edited) - digests(data)) <= 3


class _Counting:
    """A source that remembers how much was read at once and in all."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data
        self.largest = self.total = 0

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0 and offset + length <= self.size
        self.largest = max(self.largest, length)
        self.total += length
        return self._data[offset : offset + length]


def test_reading_is_bounded() -> None:
    source = _Counting(_noise(16 << 20))
    list(cut(source))
    assert source.largest <= 256 * 1024
    assert source.total < 1.2 * source.size


def test_the_layout_of_an_opaque_file_is_one_tensor() -> None:
    for size in (0, 5):
        layout = opaque.scan(BytesSource(bytes(size)))
        layout.validate()
        assert layout.tensors == (Tensor("data", "bytes", (size,), 0, size),)
        assert list(layout.gaps()) == []
