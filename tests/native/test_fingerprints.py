"""The marks of rows, against a twin in Python."""

import numpy as np
import pytest

from theta_native.fingerprints import fingerprints


@pytest.mark.parametrize("length", [0, 1, 8, 13, 64])
def test_fingerprints(length: int) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (200, length), np.uint8)
    marks = fingerprints(np.concatenate([rows, rows]))
    assert marks[:200].tolist() == marks[200:].tolist()
    distinct = len({row.tobytes() for row in rows})
    assert np.unique(marks).size == distinct
    for mark, row in list(zip(marks.tolist(), rows, strict=False))[:20]:
        assert mark == twin_fingerprint(row.tobytes())


def twin_fingerprint(row: bytes) -> int:
    h, mask = len(row), 2**64 - 1
    whole = len(row) & ~7
    words = [int.from_bytes(row[k : k + 8], "little") for k in range(0, whole, 8)] + list(row[whole:])
    for word in words:
        h = (h ^ word) * 0x9E3779B97F4A7C15 & mask
        h ^= h >> 29
    return h
