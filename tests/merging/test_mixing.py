"""The kernels of merging and their twins in numpy give the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from theta.merging.strategies import selection
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
