"""Codes and scales in a merge: never computed with, and never one of ours with one of theirs."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.merging.stored import Store
from theta.merging import measures
from theta.merging.engine import MergeOptions
from theta.merging.recipes import Recipe, Rule, rule
from theta.merging.strategies import Strategy, names, parse

Array = NDArray[Any]

WEIGHT, SCALE, NORM = "l.q.weight", "l.q.weight_scale_inv", "l.norm.weight"
GROUP = {WEIGHT, SCALE}


def quantised(seed: int) -> dict[str, Array]:
    """A matrix as DeepSeek stores it: codes of 8 bits and one scale a row."""
    values = np.random.default_rng(seed).normal(size=(4, 6)).astype(np.float32)
    scale = (np.abs(values).max(axis=1) / 448).astype(np.float32)
    codes = (values / scale[:, None]).astype(ml_dtypes.float8_e4m3fn)
    return {WEIGHT: codes, SCALE: scale}


BASE, OURS, THEIRS = (quantised(seed) for seed in range(3))
NORMS = [np.full(3, value, np.float32) for value in (1, 2, 4)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("coded"))


def merged(
    store: Store, ours: dict[str, Array], theirs: dict[str, Array], recipe: Recipe, **options: Any
) -> Any:
    sides = [BASE | {NORM: NORMS[0]}, ours | {NORM: NORMS[1]}, theirs | {NORM: NORMS[2]}]
    return store.merge(*map(store.put, sides), policy=recipe.policy(), options=MergeOptions(**options))


def values(model: dict[str, Array]) -> dict[str, bytes]:
    return {name: model[name].tobytes() for name in sorted(GROUP)}


@pytest.mark.parametrize("scope", ["conflicts", "all"])
@pytest.mark.parametrize("name", [name for name in names() if name not in ("ours", "theirs", "base")])
def test_a4_no_strategy_computes_with_codes(store: Store, name: str, scope: str) -> None:
    found = merged(store, OURS, THEIRS, Recipe(None, (Rule("l.q.*", Strategy(name)),)), scope=scope)
    left = {conflict.name: conflict for conflict in found.conflicts}
    assert found.manifest is None
    assert left.keys() >= GROUP
    assert "whose scales are in l.q.weight_scale_inv" in str(Strategy(name).why_not(left[WEIGHT]))
    assert "scales the codes in l.q.weight" in str(Strategy(name).why_not(left[SCALE]))
    assert measures.compare(store.objects, left[SCALE]) is None


@pytest.mark.parametrize(("side", "wanted"), [("ours", OURS), ("theirs", THEIRS), ("base", BASE)])
def test_a4_a_side_is_taken_whole(store: Store, side: str, wanted: dict[str, Array]) -> None:
    """Also where the other side changed the scale only, or both changed it alike."""
    for ours, theirs in (
        (OURS, THEIRS),
        (OURS | {SCALE: BASE[SCALE]}, THEIRS),
        (OURS, THEIRS | {WEIGHT: BASE[WEIGHT]}),
        (OURS, THEIRS | {SCALE: OURS[SCALE]}),
        (OURS | {SCALE: BASE[SCALE]}, BASE | {SCALE: THEIRS[SCALE]}),
    ):
        by_side = {"ours": ours, "theirs": theirs, "base": BASE}
        found = merged(store, ours, theirs, Recipe(parse("average"), (rule(f"l.q.*={side}"),)))
        assert found.manifest is not None
        result = store.get(found.manifest)
        assert values(result) == values(by_side[side])
        assert result[NORM].tolist() == [3, 3, 3]


def test_a4_codes_of_one_side_and_scales_of_the_other_are_a_conflict(store: Store) -> None:
    """Git would take both: each tensor was changed on one side only."""
    ours, theirs = OURS | {SCALE: BASE[SCALE]}, BASE | {SCALE: THEIRS[SCALE]}
    found = merged(store, ours, theirs, Recipe(parse("average")))
    assert {conflict.name for conflict in found.conflicts} == GROUP


def test_a4_rules_do_not_tear_a_group_apart(store: Store) -> None:
    rules = (rule("*.weight=ours"), rule("*_scale_inv=theirs"))
    found = merged(store, OURS, THEIRS, Recipe(None, rules))
    assert {conflict.name for conflict in found.conflicts} == GROUP
    assert not GROUP & found.decided.keys()
    half = merged(store, OURS, THEIRS, Recipe(parse("average"), (rule("*.weight=ours"),)))
    assert {conflict.name for conflict in half.conflicts} == GROUP


def test_a4_what_one_side_changed_is_taken(store: Store) -> None:
    for scope in ("conflicts", "all"):
        found = merged(store, OURS, BASE, Recipe(parse("average")), scope=scope)
        assert found.manifest is not None
        assert values(store.get(found.manifest)) == values(OURS)
    same = merged(store, OURS, OURS, Recipe(parse("average")))
    assert same.manifest is not None


def test_a4_rows_that_were_appended_to_codes_are_not_joined(store: Store) -> None:
    longer = {name: np.concatenate([BASE[name], THEIRS[name][:1]]) for name in GROUP}
    found = merged(store, OURS, longer, Recipe(parse("average")))
    assert {conflict.name for conflict in found.conflicts} == GROUP


def test_a4_several_branches(store: Store) -> None:
    sides = [store.put(model) for model in (BASE, OURS, THEIRS, BASE)]
    found = store.merge(*sides, policy=Recipe(parse("average")).policy())
    assert {conflict.name for conflict in found.conflicts} == GROUP
