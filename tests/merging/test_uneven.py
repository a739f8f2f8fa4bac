"""Merging versions of a tensor that differ in dtype or in rows, and tensors that one side tied."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.merging.stored import Store
from tests.support import Repo, make_model, read_model
from theta.errors import ThetaError
from theta.merging import geometry, recipes
from theta.merging.engine import MergeOptions
from theta.merging.recipes import Recipe
from theta.merging.strategies import parse
from theta.store.format.manifest import Line

Array = NDArray[Any]
BF16 = np.dtype(ml_dtypes.bfloat16)
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("uneven"))


def merged(
    store: Store, base: Array | None, *sides: Array, how: str, dtype: str | None = None, **options: Any
) -> Array:
    """The tensor that these become."""
    manifests = [None if base is None else store.put({"w": base, "x": np.ones(3, "<f4")})]
    manifests += [store.put({"w": side, "x": np.ones(3, "<f4")}) for side in sides]
    first, *rest = manifests
    policy = Recipe(parse(how)).policy()
    done = store.merge(
        first, *filter(None, rest), policy=policy, options=MergeOptions(dtype=dtype, **options)
    )
    assert done.manifest is not None, done.conflicts
    return store.get(done.manifest)["w"]


def wide(*arrays: Array) -> list[Array]:
    return [array.astype(np.float32) for array in arrays]


# -- dtypes ------------------------------------------------------------------------------------


def test_c3_other_dtypes_are_averaged_in_f32_into_the_dtype_of_ours(store: Store) -> None:
    """An fp16, a bf16 and an f32 fine-tune of one model: computed in f32, rounded once."""
    values = [RNG.normal(size=(7, 5)) for _ in range(3)]
    base, ours, theirs = values[0].astype("<f4"), values[1].astype("<f2"), values[2].astype(BF16)
    mean = (wide(ours)[0] + wide(theirs)[0]) / 2
    for sides in ((ours, theirs), (theirs, ours)):
        found = merged(store, base, *sides, how="average")
        assert found.dtype == sides[0].dtype
        assert np.array_equal(found, mean.astype(sides[0].dtype))
    deltas = wide(ours)[0] - base + (wide(theirs)[0] - base)
    found = merged(store, base, ours, theirs, how="task_arithmetic")
    assert np.array_equal(found, (base + deltas).astype("<f2"))


def test_the_dtype_of_the_result_can_be_chosen(store: Store) -> None:
    base, ours, theirs = (RNG.normal(size=(4, 3)).astype("<f4") for _ in range(3))
    found = merged(store, base, ours, theirs, how="average", dtype="bf16")
    assert found.dtype == BF16
    assert np.array_equal(found, ((ours + theirs) / 2).astype(BF16))
    taken = merged(store, base, ours, theirs, how="theirs", dtype="f16")
    assert np.array_equal(taken, theirs.astype("<f2"))
    exact = merged(store, base.astype("<f8"), ours.astype("<f8"), theirs, how="average", dtype="f64")
    assert np.array_equal(exact, (ours.astype("<f8") + theirs.astype("<f8")) / 2)


def test_a_dtype_is_that_of_all_floats_and_of_nothing_else(store: Store) -> None:
    def model(scale: float) -> dict[str, Array]:
        return {
            "same": np.arange(3, dtype="<f4"),
            "ours": np.full(3, scale, "<f4"),
            "n": np.arange(3),
            "z": np.full(2, 1j, "c8"),
        }

    base, ours, theirs = store.put(model(1)), store.put(model(2)), store.put(model(3))
    done = store.merge(
        base, ours, theirs, policy=Recipe(parse("average")).policy(), options=MergeOptions(dtype="bf16")
    )
    assert done.manifest is not None
    dtypes = {line.name: line.dtype for line in done.manifest.lines}
    assert dtypes == {"same": "bf16", "ours": "bf16", "n": "i64", "z": "c64"}
    assert store.get(done.manifest)["ours"].astype(float).tolist() == [2.5] * 3


def test_a_value_that_does_not_fit_the_dtype_is_refused(store: Store) -> None:
    base, ours, theirs = (np.full((2, 2), v, "<f4") for v in (1, 1e5, 3e5))
    with pytest.raises(ThetaError, match="w: a value is too large for f16"):
        merged(store, base, ours, theirs, how="average", dtype="f16")
    found = merged(store, base, ours, theirs, how="average", dtype="f16", allow_nan=True)
    assert np.isinf(found).all()


def test_integers_are_still_never_computed_with(store: Store) -> None:
    line = Line("w", "i64", (2,), "0" * 64, "1" * 40)
    other = Line("w", "f32", (2,), "1" * 64, "1" * 40)
    assert geometry.joined(None, [line, other]) is None


# -- rows --------------------------------------------------------------------------------------


def table(rows: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, 3)).astype("<f4")


def test_c2_two_vocabularies_that_grew_are_merged_on_the_rows_in_common(store: Store) -> None:
    """Rows of both sides by the strategy, further rows from the side that has them."""
    base, ours, theirs = table(5, 0), table(7, 1), table(21, 2)
    found = merged(store, base, ours, theirs, how="task_arithmetic:lambda=0.5")
    first = base + 0.5 * (ours[:5] - base + theirs[:5] - base)
    new = (ours[5:7] + theirs[5:7]) / 2  # there is no base of these rows
    assert np.allclose(found, np.concatenate([first, new, theirs[7:]]), atol=1e-6)
    assert np.array_equal(found[7:], theirs[7:])


def test_c2_a_vocabulary_that_shrank_stays_small(store: Store) -> None:
    base, ours, theirs = table(5, 0), table(5, 1), table(3, 2)
    found = merged(store, base, ours, theirs, how="average")
    assert np.array_equal(found, (ours[:3] + theirs) / 2)


def test_one_side_grew_and_another_shrank_is_a_conflict(store: Store) -> None:
    lines = [Line("w", "f32", (rows, 3), str(rows) * 64, "1" * 40) for rows in (5, 7, 3)]
    assert geometry.joined(lines[0], lines[1:]) is None


def test_columns_are_not_rows(store: Store) -> None:
    lines = [Line("w", "f32", shape, "0" * 64, "1" * 40) for shape in ((5, 3), (5, 4))]
    assert geometry.joined(lines[0], lines) is None


def test_rows_and_dtypes_may_differ_together(store: Store) -> None:
    ours, theirs = table(4, 1).astype(BF16), table(6, 2)
    found = merged(store, None, ours, theirs, how="slerp:t=0")
    assert found.dtype == BF16
    assert np.array_equal(found[:4], ours)
    assert np.array_equal(found[4:], theirs[4:].astype(BF16))


def test_statistics_of_rows_go_with_them(store: Store) -> None:
    """Regmean fits rows one by one, so a grown head has the inner products of its inputs still."""
    base, ours, theirs = table(4, 0), table(6, 1), table(5, 2)
    inner = [np.eye(3, dtype="<f4") * k for k in (1, 3)]
    statistics = tuple(store.put({"w": g}) for g in inner)
    done = store.merge(
        *(store.put({"w": w}) for w in (base, ours, theirs)),
        policy=Recipe(parse("regmean")).policy(),
        options=MergeOptions(statistics=statistics),
    )
    assert done.manifest is not None
    found = store.get(done.manifest)["w"]
    assert np.allclose(found[:5], (ours[:5] + 3 * theirs) / 4, atol=1e-6)
    assert np.array_equal(found[5:], ours[5:])


@pytest.mark.parametrize("known", [(4, 5), (2, 2)])
def test_statistics_by_element_are_those_of_the_rows(store: Store, known: tuple[int, int]) -> None:
    """Fisher weighs rows by their own information; rows that a statistic of before has not are averaged."""
    base, ours, theirs = (np.array(v, "<f4") for v in ([1, 2], [1, 3, 10, 10], [1, 4, 20, 20, 9]))
    statistics = tuple(store.put({"w": np.full(n, k, "<f4")}) for n, k in zip(known, (1, 3), strict=True))
    done = store.merge(
        *(store.put({"w": w}) for w in (base, ours, theirs)),
        policy=Recipe(parse("fisher:epsilon=0")).policy(),
        options=MergeOptions(statistics=statistics),
    )
    assert done.manifest is not None
    later = [17.5, 17.5] if known == (4, 5) else [15, 15]
    assert np.allclose(store.get(done.manifest)["w"], [1, 3.75, *later, 9])


def test_rows_without_a_base_are_averaged_where_the_base_is_asked_for(store: Store) -> None:
    base, ours, theirs = table(2, 0), table(4, 1), table(3, 2)
    for how in ("nuslerp:use_base=true", "multislerp:use_base=true"):
        found = merged(store, base, ours, theirs, how=how)
        assert np.allclose(found[2], (ours[2] + theirs[2]) / 2, atol=1e-6)
        assert np.array_equal(found[3], ours[3])


def test_the_order_of_sides_does_not_show_in_uneven_rows(store: Store) -> None:
    sides = [table(rows, seed) for rows, seed in ((5, 1), (6, 2), (4, 3))]
    orders = ([0, 1, 2], [2, 0, 1], [1, 2, 0])
    for how in ("average", "ties:density=0.5", "model_stock"):
        found = {merged(store, table(4, 0), *(sides[n] for n in o), how=how).tobytes() for o in orders}
        assert len(found) == 1


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.none(), st.integers(0, 6)), st.lists(st.integers(0, 6), min_size=2, max_size=4))
def test_each_row_of_the_result_is_in_one_span_of_the_sides_that_have_it(
    before: int | None, counts: list[int]
) -> None:
    base = None if before is None else Line("w", "f32", (before, 2), "f" * 64, "1" * 40)
    sides = [Line("w", "f32", (count, 2), str(n) * 64, "1" * 40) for n, count in enumerate(counts)]
    found = geometry.joined(base, sides)
    if found is None:
        assert before is not None
        assert min(counts) < before < max(counts)
        return
    rows = [row for span in found.spans for row in range(span.start, span.stop)]
    assert rows == list(range(found.shape[0])) or not found.spans
    for span in found.spans:
        assert span.members == tuple(n for n, count in enumerate(counts) if count >= span.stop)
        assert span.based == (before is not None and before >= span.stop)
        assert span.members or span.based


# -- ties --------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", [False, True])
def test_c7_a_tied_tensor_that_a_side_no_longer_stores_is_not_deleted(store: Store, swap: bool) -> None:
    """Theirs left out ``lm_head``, which equals the embedding: both become the same average."""
    before, mine, other = (table(4, seed) for seed in (0, 1, 2))
    base = store.put({"embed": before, "lm_head": before, "x": before})
    both = [
        store.put({"embed": mine, "lm_head": mine, "x": before}),
        store.put({"embed": other, "x": before}),
    ]
    done = store.merge(base, *both[:: -1 if swap else 1], policy=Recipe(parse("average")).policy())
    assert done.manifest is not None
    found = store.get(done.manifest)
    assert np.array_equal(found["embed"], (mine + other) / 2)
    assert np.array_equal(found["lm_head"], found["embed"])


def test_equal_tensors_that_are_not_tied_are_deleted_as_they_were(store: Store) -> None:
    """All norms begin as ones; that theirs removed one does not tie it to another."""
    ones = np.ones(4, "<f4")
    half, square = ones.astype(BF16), ones.reshape(2, 2)
    base = store.put({"l0.norm": ones, "l1.norm": ones, "l1.w": square, "x": square})
    ours = store.put({"l0.norm": ones, "x": square})
    cast = {"l0.norm": half, "l1.norm": half, "l1.w": half.reshape(2, 2), "x": half.reshape(2, 2)}
    done = store.merge(base, ours, store.put(cast), policy=Recipe(parse("ours")).policy())
    assert done.manifest is not None
    assert {*store.get(done.manifest)} == {"l0.norm", "x"}
    base = store.put({"norm.0": ones, "norm.1": ones})
    ours, theirs = store.put({"norm.0": ones, "norm.1": ones * 2}), store.put({"norm.0": ones * 3})
    done = store.merge(base, ours, theirs, policy=Recipe(parse("average")).policy())
    assert [conflict.name for conflict in done.conflicts] == ["norm.1"]


# -- as users do it ----------------------------------------------------------------------------


def test_a_merge_with_a_dtype_is_in_the_trailer_and_replays(repo: Repo) -> None:
    """``theta merge -X average --dtype f16`` with one side in bf16 and another vocabulary."""
    where = repo.path / "m.safetensors"

    def commit(rows: int, seed: int, kind: Any, message: str) -> None:
        make_model(where, {"embed": table(rows, seed).astype(kind), "b": np.full(3, seed, "<f4")})
        repo.theta("commit", "-qam", message)

    repo.theta("init")
    repo.theta("track", "*.safetensors")
    repo.theta("add", "-A")
    commit_first = table(4, 0)
    make_model(where, {"embed": commit_first, "b": np.zeros(3, "<f4")})
    repo.theta("add", "m.safetensors")
    repo.theta("commit", "-qm", "base")
    repo.theta("switch", "-qc", "side")
    commit(6, 1, BF16, "side")
    repo.theta("switch", "-q", "-")
    commit(5, 2, "<f4", "main")
    repo.theta("merge", "-q", "-X", "average", "--dtype", "f16", "side")
    found = read_model(where)
    assert {array.dtype for array in found.values()} == {np.dtype("<f2")}
    assert found["embed"].shape == (6, 3)
    assert "--dtype f16" in repo.git("log", "-1", "--format=%B")
    assert "same" in repo.theta("merge", "--replay", "HEAD").stdout


def test_a_dtype_is_kept_until_the_merge_is_concluded(repo: Repo) -> None:
    """``--dtype`` of a merge that stopped at a conflict holds for what ``theta resolve`` computes too."""
    where = repo.path / "m.safetensors"
    repo.theta("track", "*.safetensors")
    for branch, value in (("main", 0), ("side", 1), ("main", 2)):
        if branch != repo.git("branch", "--show-current"):
            repo.theta("switch", "-q", *(["-c"] if branch == "side" else []), branch)
        make_model(where, {"e": np.full(3, value, "<f4"), "q": np.full(3, -value, "<f4")})
        repo.theta("add", ".")
        repo.theta("commit", "-qm", str(value))
    repo.theta(
        "merge", "--no-prompt", "--dtype", "bf16", "--seed", "5", "--rule", "e=average", "side", code=1
    )
    repo.theta("resolve", "-X", "average")
    repo.theta("merge", "--continue")
    assert {array.dtype for array in read_model(where).values()} == {BF16}
    assert "--seed 5 --dtype bf16" in repo.git("log", "-1", "--format=%B")
    assert "the same tree" in repo.theta("merge", "--replay", "HEAD").stdout


def test_a_recipe_has_the_dtype_in_its_text() -> None:
    found = Recipe(parse("average"), dtype="bf16")
    assert recipes.from_text(found.text()) == found
