"""Means of bf16 in one pass are those of the passes of numpy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from theta.merging.strategies.numbers import finite, keep_equal, mean, narrow, widen
from theta.merging.strategies.shared import combined

SIZE = 1 << 16


def words(seed: int, *, unfinished: bool = False) -> np.ndarray:
    """All kinds of numbers: zeros, subnormal ones, large ones of both signs, and NaNs only if asked for."""
    found = np.random.default_rng(seed).integers(0, 1 << 16, SIZE).astype(np.uint16)
    if not unfinished:
        found[~finite(found, "bf16")] ^= 0x4000
    return found


@pytest.mark.parametrize("factors", [(0.5, 0.5), (0.3, 0.7), (1 / 3, 2 / 3), (1.5, -0.5)])
def test_it_is_what_the_passes_make(factors: tuple[float, float]) -> None:
    one, two = words(1), words(2)
    if factors[0] > 1:  # so that nothing overflows
        one, two = one & np.uint16(0xBFFF), two & np.uint16(0xBFFF)
    two[::7] = one[::7]
    expected = narrow(combined([widen(one, "bf16"), widen(two, "bf16")], factors), "bf16")
    keep_equal(expected, [one, two])
    found = mean([one, two], factors, "bf16")
    assert found is not None
    assert (found == expected).all()


def test_what_is_not_finite_is_left_to_the_passes() -> None:
    """They tell which numbers were not finite before."""
    largest = np.full(SIZE, 0x7F7F, np.uint16)
    assert mean([largest, words(1)], (1.5, -0.5), "bf16") is None
    assert mean([words(3, unfinished=True), words(1)], (0.5, 0.5), "bf16") is None


def test_it_is_for_two_large_sides_of_bf16_alone() -> None:
    one = words(1)
    assert mean([one, one, one], (0.3, 0.3, 0.4), "bf16") is None
    assert mean([one[:100], one[:100]], (0.5, 0.5), "bf16") is None
    assert mean([one, one], (0.5, 0.5), "f16") is None
