"""Strategies that depend on one side, and ties of tensors in several files of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.merging.stored import Store
from tests.support import Repo, make_model, read_model
from theta.errors import ExitCode, UsageError
from theta.merging.engine import MergeOptions
from theta.merging.recipes import Recipe
from theta.merging.strategies import parse

Array = NDArray[Any]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("one-side"))


def table(seed: int, *shape: int, kind: str = "<f4") -> Array:
    return (np.random.default_rng(seed).standard_normal(shape or (3, 4)) * 9).astype(kind)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("theirs", ["other shape", "other dtype", "deleted", "nan", "integers"])
def test_an_input_that_was_not_chosen_is_no_matter(store: Store, number: int, theirs: str) -> None:
    """``passthrough:input=N`` gives side N of every tensor in conflict, whatever the others became."""
    kind = "<i4" if theirs == "integers" else "<f4"
    base = {"w": table(0, kind=kind), "x": table(1)}
    changed: dict[str, Any] = {
        "other shape": table(2, 5, 2),
        "other dtype": table(2, kind="<f2"),
        "deleted": None,
        "nan": np.full((3, 4), np.nan, "<f4"),
        "integers": table(2, kind=kind),
    }
    sides = [base | {"w": table(3, kind=kind)}, base | {"w": changed[theirs]}, base]
    sides = [{name: value for name, value in side.items() if value is not None} for side in sides]
    done = store.merge(
        store.put(base), *map(store.put, sides), policy=Recipe(parse(f"passthrough:input={number}")).policy()
    )
    assert done.manifest is not None, done.conflicts
    found, wanted = store.get(done.manifest), sides[number - 1]
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert found[name].tobytes() == value.tobytes()


def test_a_scaled_input_is_the_number_of_a_side_of_the_merge(store: Store) -> None:
    """The third of three sides, of which the second did not change the tensor, and none that is not there."""
    base, ours, last = table(0), table(1), table(2)
    manifests = [store.put({"w": value}) for value in (base, ours, base, last)]
    done = store.merge(*manifests, policy=Recipe(parse("passthrough:input=3,scale=2")).policy())
    assert done.manifest is not None
    assert np.array_equal(store.get(done.manifest)["w"], last * 2)
    with pytest.raises(UsageError, match="no input 4 of 3"):
        store.merge(*manifests, policy=Recipe(parse("passthrough:input=4")).policy())
    options = MergeOptions(scope="all", without=(0,))
    done = store.merge(*manifests, policy=Recipe(parse("passthrough:input=2")).policy(), options=options)
    assert done.manifest is not None
    assert np.array_equal(store.get(done.manifest)["w"], last)  # the second that the recipe names


FIRST, LAST = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def _commit(repo: Repo, files: dict[str, dict[str, Array]], message: str) -> None:
    for old in repo.path.glob("model*.safetensors"):
        old.unlink()
    for name, tensors in files.items():
        make_model(repo.path / name, tensors)
    repo.theta("add", "-A")
    repo.theta("commit", "-q", "-m", message)


@pytest.mark.parametrize("layout", ["same shards", "other shards", "octopus", "left in conflict"])
def test_c7_a_tied_head_in_another_shard_is_not_deleted(repo: Repo, layout: str) -> None:
    """Theirs left ``lm_head`` out of its shard; the embedding that it equals is in another one."""
    before, mine, other, norm = table(0), table(1), table(2), table(3, 4)
    repo.theta("track", "*.safetensors")
    shards = {FIRST: {"embed_tokens.weight": before}, LAST: {"lm_head.weight": before, "norm": norm}}
    _commit(repo, shards, "base")
    repo.git("branch", "theirs")
    repo.git("branch", "third")
    _commit(
        repo, {FIRST: {"embed_tokens.weight": mine}, LAST: {"lm_head.weight": mine, "norm": norm}}, "ours"
    )
    repo.theta("switch", "-q", "theirs")
    dropped = {FIRST: {"embed_tokens.weight": other}, LAST: {"norm": norm}}
    if layout == "other shards":
        three = [name.replace("00002.s", "00003.s") for name in (FIRST, LAST)]
        dropped = dict(zip(three, dropped.values(), strict=True))
        dropped["model-00003-of-00003.safetensors"] = {"bias": norm}
    _commit(repo, dropped, "theirs")
    branches = ["theirs"]
    if layout == "octopus":
        repo.theta("switch", "-q", "third")
        _commit(
            repo,
            {FIRST: {"embed_tokens.weight": before}, LAST: {"lm_head.weight": before, "norm": norm * 2}},
            "third",
        )
        branches.append("third")
    repo.theta("switch", "-q", "main")
    if layout == "left in conflict":
        done = repo.theta("merge", "theirs", code=ExitCode.DIFFERENCES)
        assert "lm_head.weight" in done.stdout + done.stderr
        repo.theta("resolve", "-X", "average")
    else:
        repo.theta("merge", "-q", "-X", "average", *branches)
    found = {
        name: value
        for file in repo.path.glob("model*.safetensors")
        for name, value in read_model(file).items()
    }
    mean = (mine + other) / 2
    assert np.array_equal(found["embed_tokens.weight"], mean)
    assert np.array_equal(found["lm_head.weight"], mean)


def test_a_tensor_of_ours_goes_to_the_last_file_of_a_model_that_theirs_cut_anew(repo: Repo) -> None:
    """The file is laid out anew from skeletons that no commit has."""
    one, two, three, added = (table(seed) for seed in range(4))
    repo.theta("track", "*.safetensors")
    _commit(repo, {FIRST: {"a": one}, LAST: {"b": two, "c": three}}, "base")
    repo.git("branch", "theirs")
    _commit(repo, {FIRST: {"a": one * 2}, LAST: {"b": two, "c": three, "added": added}}, "ours")
    repo.theta("switch", "-q", "theirs")
    names = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    anew = zip(names, ({"a": one}, {"b": two * 3}, {"c": three}), strict=True)
    _commit(repo, dict(anew), "theirs")
    repo.theta("switch", "-q", "main")
    repo.theta("merge", "-q", "theirs")
    found = [read_model(repo.path / name) for name in names]
    assert [sorted(file) for file in found] == [["a"], ["b"], ["added", "c"]]
    assert np.array_equal(found[0]["a"], one * 2)
    assert np.array_equal(found[1]["b"], two * 3)
    assert np.array_equal(found[2]["added"], added)
