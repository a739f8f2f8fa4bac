"""Fingerprints of repeated runs, against a twin."""

import numpy as np
import pytest

from theta_native import SMALL, fingerprints
from theta_native.fingerprints import marks


def twin(groups: list[int], one_in: int) -> list[int]:
    odd, mask, found = 0x9E3779B97F4A7C15, 2**64 - 1, []
    for i in range(len(groups) - 3):
        h = groups[i] * odd & mask
        if h * one_in < 1 << 64:
            for k in (1, 2, 3):
                h = (h + groups[i + k]) * odd & mask
            found.append(h)
    return found[: max(len(groups) // 4, 1)]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 3000])
@pytest.mark.parametrize("one_in", [2, 64])
@pytest.mark.parametrize("way", ["kernel", "numpy"])
def test_marks(way: str, size: int, one_in: int) -> None:
    groups = np.random.default_rng(size).integers(0, 2**63, size, np.uint64)
    shift = np.uint64(64 - (one_in.bit_length() - 1))
    found = getattr(fingerprints, f"_marks_by_{way}")(groups, shift, max(size // 4, 1))
    assert found.tolist() == twin(groups.tolist(), one_in)


def test_marks_of_many_groups() -> None:
    groups = np.random.default_rng(2).integers(0, 2**63, SMALL + 1, np.uint64)
    assert marks(groups, 64).tolist() == twin(groups.tolist(), 64)
    assert marks(groups[:SMALL], 64).tolist() == twin(groups[:SMALL].tolist(), 64)


def test_equal_runs_have_equal_marks() -> None:
    groups = np.random.default_rng(1).integers(0, 2**63, 4000, np.uint64)
    found = marks(np.tile(groups, 3), 64)
    assert np.unique(found).size <= found.size / 2.5
