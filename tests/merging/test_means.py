"""Sums of two sides of bf16 in one pass are those of the passes of numpy, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from theta.merging.strategies.numbers import (
    finite,
    keep_equal,
    narrow,
    two_combined,
    two_multiplied,
    widen,
)
from theta.merging.strategies.shared import combined

SIZE = 1 << 16


def words(seed: int, *, unfinished: bool = False) -> np.ndarray:
    """All kinds of numbers: zeros, subnormal ones, large ones of both signs, and NaNs only if asked for."""
    found = np.random.default_rng(seed).integers(0, 1 << 16, SIZE).astype(np.uint16)
    if not unfinished:
        found[~finite(found, "bf16")] ^= 0x4000
    return found


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("factors", [(0.5, 0.5), (0.3, 0.7), (1 / 3, 2 / 3), (1.5, -0.5), (0.9, 0.3)])
def test_it_is_what_the_passes_make(factors: tuple[float, float], keeps: bool) -> None:
    one, two = words(1), words(2)
    if sum(map(abs, factors)) > 1:  # so that nothing overflows
        one, two = one & np.uint16(0xBFFF), two & np.uint16(0xBFFF)
    two[::7] = one[::7]
    passes = narrow(combined([widen(one, "bf16"), widen(two, "bf16")], factors), "bf16")
    expected = passes.copy()
    keep_equal(expected, [one, two])
    assert (expected != passes).any() == (sum(factors) != 1)
    found = two_combined([one, two], factors, "bf16", keep_equal=keeps)
    assert found is not None
    assert (found == (expected if keeps else passes)).all()


def test_what_is_not_finite_is_left_to_the_passes() -> None:
    """They tell which numbers were not finite before."""
    largest = np.full(SIZE, 0x7F7F, np.uint16)
    assert two_combined([largest, words(1)], (1.5, -0.5), "bf16", keep_equal=True) is None
    unfinished = [words(3, unfinished=True), words(1)]
    assert two_combined(unfinished, (0.5, 0.5), "bf16", keep_equal=True) is None


def test_it_is_for_two_large_sides_of_bf16_alone() -> None:
    one = words(1)
    for inputs, dtype in (([one] * 3, "bf16"), ([one[:100]] * 2, "bf16"), ([one, one], "f16")):
        assert two_combined(inputs, (0.3, 0.3, 0.4), dtype, keep_equal=True) is None
        assert two_multiplied(inputs, dtype) is None


@pytest.mark.parametrize("rest", [0, 1, 63, 64, 65])
def test_dot_products_of_two_sides(rest: int) -> None:
    """Each is a sum of exact products; what is rounded is a billionth of the sum of their sizes at most."""
    one, two = (np.concatenate([words(seed), words(seed + 5)[:rest]]) & 0xBFFF for seed in (1, 2))
    wide = [widen(side, "bf16").astype(np.float64) for side in (one, two)]
    found = two_multiplied([one, two], "bf16")
    assert found is not None
    for value, (a, b) in zip(found, ((0, 0), (0, 1), (1, 1)), strict=True):
        products = wide[a] * wide[b]
        assert abs(value - math.fsum(products)) <= 1e-13 * math.fsum(np.abs(products))


def test_dot_products_of_what_is_not_finite() -> None:
    infinite = np.full(SIZE, 0x7F80, np.uint16)
    found = two_multiplied([infinite, words(1)], "bf16")
    assert found is not None
    assert found[0] == math.inf
    assert math.isnan(found[1])
    assert math.isfinite(found[2]) or found[2] == math.inf
