"""Rows that are matched by token: what comes out does not depend on the order that a side has them in."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.merging.stored import Store
from theta.merging.engine import MergeOptions, Outcome
from theta.merging.recipes import Recipe
from theta.merging.shapes import by_token
from theta.merging.shapes.by_token import TokenOrder, agree
from theta.merging.strategies import parse

Array = NDArray[Any]
NAME = "wte.weight"
STRATEGIES = (
    "average",
    "linear:weight=[0.3,0.7]",
    "task_arithmetic:lambda=0.5",
    "ties:density=0.4",
    "dare_linear:density=0.5",
    "slerp:t=0.3",
    "model_stock",
    "nuslerp",
    "fisher",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("by_token"))


def merged(store: Store, how: str, versions: list[Array], statistics: list[Array], **options: Any) -> Outcome:
    base, ours, theirs = (store.put({NAME: one}) for one in versions)
    weights = tuple(store.put({NAME: one}) for one in statistics)
    found = MergeOptions(seed=3, statistics=weights if "fisher" in how else (), **options)
    return store.merge(base, ours, theirs, policy=Recipe(parse(how)).policy(), options=found)


def value(store: Store, outcome: Outcome) -> Array:
    assert outcome.manifest is not None, outcome.conflicts
    return store.get(outcome.manifest)[NAME]


@settings(max_examples=4, deadline=None)
@given(st.data())
@pytest.mark.parametrize("how", STRATEGIES)
def test_the_order_of_theirs_and_of_the_base_does_not_matter(store: Store, how: str, data: Any) -> None:
    """Put in other orders, with tokenizers that say so, they become what they became before, bit for bit."""
    count, random = data.draw(st.integers(1, 9)), np.random.default_rng(data.draw(st.integers(0, 99)))
    versions = [random.normal(size=(count, 5)).astype("<f4") for _ in range(3)]
    statistics = [random.random((count, 5)).astype("<f4") for _ in range(2)]
    orders = [random.permutation(count) for _ in range(2)]
    wanted = value(store, merged(store, how, versions, statistics))

    tokens = [f"t{number}" for number in range(count)]
    plain = {token: number for number, token in enumerate(tokens)}
    moved = [{tokens[old]: new for new, old in enumerate(order)} for order in orders]
    base, theirs = versions[0][orders[0]], versions[2][orders[1]]
    order = TokenOrder(plain, (moved[0], plain, moved[1]), 0)
    given_statistics = [statistics[0], statistics[1][orders[1]]]
    found = merged(store, how, [base, versions[1], theirs], given_statistics, tokens=order)
    assert np.array_equal(value(store, found), wanted)


@pytest.mark.parametrize("scope", ["conflicts", "all"])
def test_rows_of_the_result_are_those_of_any_side(store: Store, scope: str) -> None:
    base = np.arange(6, dtype="<f4").reshape(3, 2)
    ours = np.concatenate([base + 2, [[70, 71]]]).astype("<f4")
    theirs = np.concatenate([[[80, 81]], base[::-1] + 4]).astype("<f4")
    ids = {"a": 0, "b": 1, "c": 2, "o": 3, "t": 4}
    versions = ({"a": 0, "b": 1, "c": 2}, {"a": 0, "b": 1, "c": 2, "o": 3}, {"t": 0, "c": 1, "b": 2, "a": 3})
    found = merged(store, "average", [base, ours, theirs], [], tokens=TokenOrder(ids, versions), scope=scope)
    assert np.array_equal(value(store, found), [*(base + 3), [70, 71], [80, 81]])


def test_dtypes_may_differ_as_well(store: Store) -> None:
    ours, theirs = np.array([[1, 2], [3, 4]], "<f2"), np.array([[30, 40], [10, 20]], "<f4")
    order = TokenOrder({"a": 0, "b": 1}, ({"a": 0, "b": 1}, {"a": 0, "b": 1}, {"b": 0, "a": 1}), 0)
    found = value(store, merged(store, "average", [ours * 0, ours, theirs], [], tokens=order))
    assert found.dtype == np.dtype("<f2")
    assert np.array_equal(found, [[5.5, 11], [16.5, 22]])


def test_a_token_without_any_row_leaves_the_tensor_in_conflict(store: Store) -> None:
    order = TokenOrder({"a": 0, "new": 1}, ({"a": 0},) * 3)
    one = np.ones((1, 2), "<f4")
    found = merged(store, "average", [one, one + 1, one + 2], [], tokens=order)
    assert found.manifest is None
    assert [(left.name, left.reason) for left in found.conflicts] == [
        (NAME, "no side has a row for 'new' of the merged tokenizer")
    ]


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ([{"a": 0}, {"a": 0, "b": 1}], True),
        ([{"a": 0, "c": 1}, {"a": 0, "b": 1}], False),
        ([{"a": 0}, {"a": 1}], False),
        ([{"a": 0}, {"a": 0, "b": 1}, {"a": 0, "c": 2}], True),
        ([{"a": 0, "same": 0}, {"a": 0, "same": 0, "b": 1}], True),
    ],
)
def test_when_rows_of_one_number_are_of_one_token(versions: list[dict[str, int]], wanted: bool) -> None:
    assert agree(versions) is wanted


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_are_put_in_place_whatever_pieces_they_come_in(data: Any) -> None:
    count, width = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 6))
    words = np.arange(1, count * width + 1, dtype="<u2")
    cuts = sorted(data.draw(st.lists(st.integers(0, count * width), max_size=8)))
    order = np.array(data.draw(st.permutations(range(count))))
    wanted = np.empty((count, width), "<u2")
    wanted[order] = words.reshape(count, width)
    assert np.array_equal(by_token.placed(np.split(words, cuts), order, width), wanted.reshape(-1))


def test_no_second_matrix_is_in_memory() -> None:
    rows, width = 4096, 1024
    pieces = (np.full(1 << 16, 7, "<u2") for _ in range(rows * width >> 16))
    tracemalloc.start()
    by_token.placed(pieces, np.arange(rows)[::-1], width)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 2 * rows * width
