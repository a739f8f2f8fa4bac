"""The kernels of merging and their twins in numpy give the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from theta.merging.strategies import numbers, selection
from theta_native import mixing

Array = NDArray[Any]


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
@pytest.mark.parametrize("shift", [0, 16])
def test_histogram(kind: Any, shift: int) -> None:
    random = np.random.default_rng(0)
    keys = random.integers(0, 1 << 20, 5000).astype(kind)
    prefix = int(keys[7] >> kind(shift + 16)) if shift else 3
    found, twin = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    mixing.add_histogram(keys, shift, prefix, found)
    selection.add_histogram(keys, shift, prefix, twin)  # not a full block: numpy
    assert found.sum() > 0
    assert np.array_equal(found, twin)
    with pytest.raises(ValueError, match="65536"):
        mixing.add_histogram(keys, shift, prefix, found[1:])


def elected(values: Array, masks: list[Array], weights: Array, *, divide: bool) -> Array:
    """The consensus as TIES has it, in numpy."""
    kind = values.dtype.type
    weighted = [np.where(m, row, kind(0)) * kind(w) for m, row, w in zip(masks, values, weights, strict=True)]
    up = sum(weighted[1:], start=kind(0) + weighted[0]) >= 0
    out, below = np.zeros_like(values[0]), np.zeros_like(values[0])
    for row, weight in zip(weighted, weights, strict=True):
        agrees = np.where(up, row > 0, row < 0)
        out += np.where(agrees | np.isnan(row), row, kind(0))
        below += agrees * kind(weight)
    return np.asarray(out / np.where(below == 0, kind(1), below)) if divide else out


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("divide", [False, True])
def test_elect(kind: Any, divide: bool) -> None:
    random = np.random.default_rng(1)
    values = (random.integers(-4, 5, (3, 4000)) / 4).astype(kind)
    values[1, 5] = np.nan
    weights = np.array([1, 0.5, 0.25], kind)
    bits = np.uint32 if kind is np.float32 else np.uint64
    edges = np.array([0.5, 0.25, 0.75], kind).view(bits)
    quotas = np.array([100, 4000, 0])
    keys = np.abs(values).view(bits)
    masks = []
    for row, edge, quota in zip(keys, edges, quotas, strict=True):
        mask = row > edge
        mask[np.flatnonzero(row == edge)[:quota]] = True
        masks.append(mask)
    wanted = elected(values, masks, weights, divide=divide)
    found = mixing.elect(values.copy(), edges, quotas, weights, divide=divide)
    assert found.tobytes() == wanted.tobytes()
    with pytest.raises(ValueError, match="each row"):
        mixing.elect(values, edges[:2], quotas, weights, divide=divide)


def bfloats(seed: int, size: int, base: Array | None = None) -> Array:
    """Words of bf16; near ``base`` many differences are equal, and some are 0."""
    random = np.random.default_rng(seed)
    values = random.normal(size=size).astype(np.float32) * np.float32(0.02)
    if base is not None:
        values = numbers.widen(base, "bf16") + values * np.float32(0.02)
    return numbers.narrow(values.astype(np.float32), "bf16")


SIZE = 1 << 16


def test_gaps_of_words() -> None:
    base = bfloats(0, SIZE)
    side = bfloats(1, SIZE, base)
    delta = numbers.widen(side, "bf16") - numbers.widen(base, "bf16")
    found = numbers.gaps(side, base, "bf16")
    assert found is not None
    assert np.array_equal(found, selection.magnitudes(delta))
    assert numbers.gaps(side[:100], base[:100], "bf16") is None
    assert numbers.gaps(side, base, "f16") is None
    with pytest.raises(ValueError, match="size"):
        mixing.gaps(side, base[:100])


@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("rates", [(1.0, 1.0, 1.0), (0.3, 1.7, 0.9), (-1.0, 1.0, 2.0)])
@pytest.mark.parametrize("quota", [-3, 0, 1, 17, SIZE])
def test_the_consensus_of_words(divide: bool, rates: tuple[float, float, float], quota: int) -> None:
    base = bfloats(0, SIZE)
    sides = [bfloats(seed, SIZE, base) for seed in (1, 2)]
    wide = [numbers.widen(words, "bf16") for words in (*sides, base)]
    deltas = np.array([wide[0] - wide[2], wide[1] - wide[2]])
    keys = selection.magnitudes(deltas)
    cuts = np.array([np.sort(row)[SIZE // 2] for row in keys], np.uint32)
    assert all(np.count_nonzero(row == cut) > 17 for row, cut in zip(keys, cuts, strict=True))
    ties = np.array([quota, SIZE], np.int64)
    out = mixing.elect(deltas, cuts, ties, np.array(rates[:2], np.float32), divide=divide)
    expected = numbers.narrow(wide[2] + out * np.float32(rates[2]), "bf16")
    found = mixing.elected_words(sides, base, cuts, ties, rates, divide=divide)
    assert found is not None
    assert np.array_equal(found, expected)


def test_no_consensus_of_words_that_are_not_finite() -> None:
    base = bfloats(0, SIZE)
    sides = [bfloats(seed, SIZE, base) for seed in (1, 2)]
    cuts, ties, rates = np.array([0, 0], np.uint32), np.array([SIZE, SIZE]), (1.0, 1.0, 1.0)
    for number, word in ((0, 0x7F80), (1, 0xFFC0), (0, 0x7F7F)):
        odd = [words.copy() for words in sides]
        odd[number][77] = word
        assert mixing.elected_words(odd, base, cuts, ties, (2.0, 2.0, 1.0), divide=False) is None
        assert mixing.elected_words(sides, base, cuts, ties, rates, divide=False) is not None
    assert mixing.elected_words(sides, base, cuts, ties, (1e39, 1.0, 1.0), divide=False) is None
    with pytest.raises(ValueError, match="each side"):
        mixing.elected_words(sides, base, cuts[:1], ties, rates, divide=False)
    with pytest.raises(ValueError, match="two sides"):
        mixing.elected_words(sides[:1], base, cuts, ties, rates, divide=False)
