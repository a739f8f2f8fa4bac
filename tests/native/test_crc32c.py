"""CRC-32C against the published values, and the kernel against its twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theta_native import crc32c as kernels
from theta_native.crc32c import crc32c

RFC_3720_B4 = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
    b"123456789": 0xE3069283,
    b"": 0,
}


@pytest.mark.parametrize("data", RFC_3720_B4, ids=bytes.hex)
def test_published_values(data: bytes) -> None:
    assert crc32c(data) == RFC_3720_B4[data]


@given(st.binary(max_size=70), st.integers(0, 2**32 - 1))
def test_kernel_and_python_agree(data: bytes, value: int) -> None:
    found = kernels._update(np.frombuffer(data, np.uint8), np.uint32(value ^ 0xFFFFFFFF), kernels._tables())
    assert int(found) ^ 0xFFFFFFFF == crc32c(data, value)


@given(st.lists(st.integers(0, 20_000), max_size=4))
def test_pieces_are_the_whole(sizes: list[int]) -> None:
    data = np.random.default_rng(sum(sizes)).bytes(sum(sizes))
    value = start = 0
    for size in sizes:
        value = crc32c(data[start : start + size], value)
        start += size
    assert value == crc32c(data)
