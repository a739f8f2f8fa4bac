"""``outer``, DiLoCo's outer step (arXiv:2311.08105), against ``torch.optim.SGD(nesterov=True)``."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.merging.stored import Store
from tests.support import Repo, make_model, read_model
from theta.errors import ExitCode
from theta.merging.engine import MergeOptions, Outcome
from theta.merging.recipes import Recipe
from theta.merging.strategies import parse

Array = NDArray[Any]
BASE = np.array([1.0, -0.5, 0.25, 2.0, 0.0, -3.0])
ROUNDS = (
    ([0.1, -0.2, 0.3, 0, 0.05, 1], [-0.1, 0.4, 0.2, 0, 0.15, 2], [0.3, 0.1, -0.2, 0, -0.05, -1.5]),
    ([0.2, 0.2, -0.1, 0.5, 0, 0.25], [0.1, -0.3, 0.4, 0.25, 0, 0.5], [0, 0.1, 0.1, -0.25, 0, 0.75]),
)
"""The differences of three contributors to the base of each round."""
TORCH = {
    "outer": (
        ([1.133, -0.367, 0.383, 2.0, 0.0665, -2.335], [-0.1, -0.1, -0.1, 0.0, -0.05, -0.5]),
        (
            [1.3227, -0.3103, 0.617033333, 2.221666667, 0.09485, -1.3865],
            [-0.19, -0.09, -0.223333333, -0.166666667, -0.045, -0.95],
        ),
    ),
    "outer:lr=0.5,momentum=0": (
        ([1.05, -0.45, 0.3, 2.0, 0.025, -2.75], None),
        ([1.1, -0.45, 0.366666667, 2.083333333, 0.025, -2.5], None),
    ),
    "outer:lr=1,momentum=0.5,weight=[1,2,1]": (
        ([1.075, -0.2375, 0.4375, 2.0, 0.1125, -1.6875], [-0.05, -0.175, -0.125, 0.0, -0.075, -0.875]),
        (
            [1.2375, -0.30625, 0.76875, 2.28125, 0.13125, -0.71875],
            [-0.125, -0.0125, -0.2625, -0.1875, -0.0375, -0.9375],
        ),
    ),
}
"""Parameters and momentum buffers of torch 2.13 after each step, in float64."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("outer"))


def step(store: Store, how: str, base: Array, sides: list[Array], kept: Outcome | None = None) -> Outcome:
    """Merge checkpoints of one tensor, as the next round after ``kept``."""
    options = MergeOptions("all", keeps=True, kept=kept.kept if kept else None, kept_store="m.momentum")
    manifests = [store.put({"w": base}), *(store.put({"w": side}) for side in sides)]
    done = store.merge(*manifests, policy=Recipe(parse(how)).policy(), options=options)
    assert done.manifest is not None
    return done


def values(store: Store, manifest: Any) -> Array:
    assert manifest is not None
    return store.get(manifest)["w"]


@pytest.mark.parametrize("how", TORCH)
@pytest.mark.parametrize("dtype", ["f4", "f8", "bf16"])
def test_two_rounds_are_those_of_torch(store: Store, how: str, dtype: str) -> None:
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bf16" else np.dtype(dtype)
    near = {"f4": 1e-6, "f8": 1e-8, "bf16": 2e-2}[dtype]
    base, kept = BASE.astype(kind), None
    for differences, (wanted, momentum) in zip(ROUNDS, TORCH[how], strict=True):
        sides = [(base.astype(np.float64) + np.array(each)).astype(kind) for each in differences]
        kept = step(store, how, base, sides, kept)
        base = values(store, kept.manifest)
        assert base.dtype == kind
        assert np.allclose(base.astype(np.float64), wanted, atol=near, rtol=0)
        found = values(store, kept.kept)
        assert found.dtype == ("f8" if dtype == "f8" else "f4")
        if momentum is not None:
            assert np.allclose(found, momentum, atol=near, rtol=0)


def test_momentum_moves_a_tensor_that_nobody_changed(store: Store) -> None:
    """As torch does with a gradient of zero; a side that is the base is no contributor."""
    base = BASE.astype("<f4")
    first = step(store, "outer:lr=1,momentum=0.5", base, [base, base + 1, base + 3])
    after = values(store, first.manifest)
    assert np.allclose(after, base + 2 * 1.5)
    options = MergeOptions("all", keeps=True, kept=first.kept, kept_store="m.momentum")
    policy = Recipe(parse("outer:lr=1,momentum=0.5")).policy()
    before = store.put({"w": after, "x": base})
    sides = [store.put({"w": after, "x": base + number}) for number in (1, 2)]
    done = store.merge(before, *sides, policy=policy, options=options)
    found = store.get(done.manifest) if done.manifest else {}
    assert np.allclose(found["w"], after + 2 * 0.25)  # m = 0.5 * -2 + 0, and 0.5 of that
    assert np.allclose(found["x"], base + 1.5 * 1.5)
    assert done.kept is not None
    assert np.allclose(store.get(done.kept)["w"], -1.0)


def test_rows_that_were_appended_have_no_momentum_yet(store: Store) -> None:
    base, grown = np.ones((2, 3), "<f4"), np.full((4, 3), 2, "<f4")
    done = step(store, "outer:lr=1,momentum=0.5", base, [grown, base + 3])
    assert np.allclose(values(store, done.manifest), [[4] * 3] * 2 + [[2] * 3] * 2)
    assert np.allclose(values(store, done.kept), [[-2] * 3] * 2 + [[0] * 3] * 2)


MODEL, MOMENTUM = "model.safetensors", "model.momentum.safetensors"


def _round(repo: Repo, number: int) -> None:
    """Three contributors train, each on a branch of its own."""
    start = read_model(repo.path / MODEL)["w"]
    for name, difference in zip("abc", ROUNDS[number], strict=True):
        repo.theta("switch", "-q", "-c", f"{name}{number}", "main")
        make_model(repo.path / MODEL, {"w": start + np.array(difference, "<f4"), "n": np.array([number])})
        repo.theta("commit", "-qam", name)
    repo.theta("switch", "-q", "main")


def test_rounds_of_three_branches_keep_the_momentum_and_replay(repo: Repo) -> None:
    """The second merge reads what the first wrote beside the model, and both replay to the same bytes."""
    repo.theta("track", "*.safetensors")
    make_model(repo.path / MODEL, {"w": BASE.astype("<f4"), "n": np.array([0])})
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "base")
    merges = []
    for number, (wanted, momentum) in enumerate(TORCH["outer"]):
        assert momentum is not None
        _round(repo, number)
        repo.theta("merge", "-q", "-X", "outer", "--rule", "n=theirs", *(f"{one}{number}" for one in "abc"))
        assert np.allclose(read_model(repo.path / MODEL)["w"], wanted, atol=1e-6, rtol=0)
        kept = read_model(repo.path / MOMENTUM)
        assert list(kept) == ["w"]
        assert np.allclose(kept["w"], momentum, atol=1e-6, rtol=0)
        assert not repo.git("status", "--porcelain")
        assert "-X outer" in repo.git("log", "-1", "--format=%B")
        merges.append(repo.git("rev-parse", "HEAD"))
    for commit in merges:
        assert "the same tree" in repo.theta("merge", "--replay", commit).stdout
    assert repo.theta("fsck").returncode == 0


def test_a_momentum_that_git_would_store_as_it_is_is_refused(repo: Repo) -> None:
    repo.theta("track", MODEL)
    make_model(repo.path / MODEL, {"w": BASE.astype("<f4"), "n": np.array([0])})
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "base")
    _round(repo, 0)
    done = repo.theta("merge", "-X", "outer", "a0", "b0", code=ExitCode.USAGE)
    assert "theta track '*.momentum.safetensors'" in done.stderr
    assert (
        "leave out --scope"
        in repo.theta("merge", "-X", "outer", "--scope", "conflicts", "a0", "b0", code=ExitCode.USAGE).stderr
    )
