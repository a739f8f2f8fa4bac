"""Orthogonal matching pursuit, beside the algorithm as textbooks write it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from theta.errors import UsageError
from theta.merging.documents import tokenizer_keys
from theta.merging.shapes import pursuit

Array = NDArray[Any]


def textbook(target: Array, rows: Array, terms: int) -> tuple[list[int], Array]:
    """Choose the row with the largest inner product with the rest, solve anew for all chosen, repeat."""
    chosen: list[int] = []
    rest, weights = target, np.zeros(0)
    for _ in range(terms):
        scores = np.abs(rows @ rest)
        scores[chosen] = -1
        chosen.append(int(scores.argmax()))
        weights = np.linalg.lstsq(rows[chosen].T, target, rcond=None)[0]
        rest = target - rows[chosen].T @ weights
    return chosen, weights


def source(rows: Array) -> pursuit.MatrixRows:
    """The rows of an array."""
    return pursuit.MatrixRows(len(rows), rows.shape[1], lambda numbers: rows[numbers])


def found(targets: Array, rows: Array, terms: int) -> tuple[Array, Array]:
    """Numbers and weights for all targets."""
    parts = list(pursuit.combinations(source(targets), source(rows), terms))
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    return np.concatenate([part.numbers for part in parts]), np.concatenate([part.weights for part in parts])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 40), st.integers(2, 12))
def test_it_is_the_textbook_s(seed: int, terms: int, count: int, width: int) -> None:
    random = np.random.default_rng(seed)
    rows, targets = random.normal(size=(count, width)), random.normal(size=(4, width))
    numbers, weights = found(targets, rows, terms)
    most = min(terms, count, width)
    assert numbers.shape == weights.shape == (4, most)
    for target, own, factors in zip(targets, numbers, weights, strict=True):
        wanted, values = textbook(target, rows, most)
        assert own.tolist() == wanted
        assert np.allclose(factors, values, rtol=1e-6, atol=1e-6)


def test_a_combination_of_rows_at_right_angles_is_found_again() -> None:
    rows = np.eye(6) * [1, 2, 3, 4, 5, 6]
    target = 0.5 * rows[4] - 2 * rows[1]
    numbers, weights = found(target[None], rows, 2)
    assert sorted(zip(numbers[0].tolist(), weights[0].tolist(), strict=True)) == [(1, -2.0), (4, 0.5)]


def test_rows_that_are_equal_or_zero_add_nothing() -> None:
    row = np.arange(1.0, 5)
    rows = np.stack([row, row, row * 2, np.zeros(4)])
    numbers, weights = found(row[None] * 3, rows, 4)
    assert np.isfinite(weights).all()
    assert np.allclose(weights[0] @ rows[numbers[0]], row * 3)


def test_many_targets_take_bounded_memory() -> None:
    random = np.random.default_rng(0)
    rows, targets = random.normal(size=(9000, 64)).astype("<f4"), random.normal(size=(5000, 64)).astype("<f4")
    tracemalloc.start()
    for _ in pursuit.combinations(source(targets), source(rows), 3):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 320 << 20  # scores of all at once are 5000 * 9000 * 8 = 360 MB, twice


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_hides_no_others(value: float) -> None:
    random = np.random.default_rng(1)
    rows, targets = random.normal(size=(300, 16)), random.normal(size=(5, 16))
    without = rows[1:]
    rows[0, 3] = value
    numbers, weights = found(targets, rows, 4)
    wanted, factors = found(targets, without, 4)
    assert (numbers - 1).tolist() == wanted.tolist()
    assert weights.tobytes() == factors.tobytes()
    assert not list(pursuit.combinations(source(targets), source(rows[:1]), 4))


def test_thousands_of_targets_share_a_reading_of_the_rows() -> None:
    random = np.random.default_rng(2)
    rows, targets = random.normal(size=(3000, 256)).astype("<f4"), random.normal(size=(3000, 256))
    asked: list[Array] = []

    def take(numbers: Array) -> Array:
        asked.append(numbers)
        return rows[numbers]

    def readings(count: int) -> int:
        asked.clear()
        wanted = pursuit.MatrixRows(len(rows), 256, take)
        assert len(list(pursuit.combinations(source(targets[:count]), wanted, 3))) == 1
        return sum(len(one) == 1024 and bool((np.diff(one) == 1).all()) for one in asked)

    assert readings(3000) == readings(2) == 2 * (3 + 1)  # of 1024 rows each, and once for rows not finite


def test_rows_that_are_almost_equal_are_told_apart() -> None:
    random = np.random.default_rng(3)
    first = random.normal(size=64)
    rows = first + 1e-8 * random.normal(size=(12, 64))
    targets = random.normal(size=(3, 12)) @ rows
    numbers = found(targets, rows, 12)[0]
    pursued = pursuit._Pursued(targets.copy(), 12)
    for _ in range(12):
        pursued.add(source(rows))
    assert np.array_equal(pursued.numbers, numbers)
    assert np.linalg.norm(pursued._left) < 1e-12 * np.linalg.norm(targets)


def test_weights_leave_out_what_processors_round_differently() -> None:
    random = np.random.default_rng(4)
    rows, targets = random.normal(size=(200, 32)), random.normal(size=(6, 32))
    first = next(pursuit.combinations(source(targets), source(rows), 8))
    other = next(pursuit.combinations(source(targets * (1 + 2**-50)), source(rows), 8))
    wide = rows[first.numbers.reshape(-1)]
    assert first.sums(wide).tobytes() == other.sums(wide).tobytes()
    assert np.allclose(first.sums(wide), np.einsum("nt,ntw->nw", first.weights, rows[first.numbers]))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"approximation_method": "sparse"}, "mean or omp"),
        ({"approximation_method": "omp", "k": 0}, "from 1 to 1024"),
        ({"approximation_method": "omp", "k": True}, "from 1 to 1024"),
        ({"k": 8}, "goes with"),
    ],
)
def test_the_keys_of_a_recipe_are_checked(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        tokenizer_keys.parse({"tokenizer": given}, "r.yml")
    key = tokenizer_keys.parse({"tokenizer": {"approximation_method": "omp", "k": 8}}, "r.yml")
    assert key is not None
    assert key.terms == 8
