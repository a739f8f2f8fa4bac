"""A sharded model that one branch cut anew and the other one trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compat.agreement import assert_agreement
from tests.formats.helpers import write_shards
from tests.support import Repo, make_model, random_tensors, read_model

TENSORS = random_tensors({f"layers.{number}.w": (20, 30) for number in range(6)}, seed=5)


def read_shards(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("model-*.safetensors")):
        found |= read_model(path)
    return found


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """``main`` has two shards, ``cut`` six, ``train`` two with other values, ``more`` with others again."""
    repo = Repo.create(tmp_path_factory.mktemp("shards") / "repo")
    repo.theta("track", "*.safetensors")
    write_shards(repo.path, 2, TENSORS)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "two shards")
    changes: dict[str, dict[str, float]] = {
        "train": {"layers.1.w": 1, "layers.4.w": 2},
        "more": {"layers.1.w": 3},
    }
    for branch, changed in changes.items():
        repo.git("switch", "-q", "-c", branch, "main")
        write_shards(repo.path, 2, {n: v + np.float32(changed.get(n, 0)) for n, v in TENSORS.items()})
        repo.theta("commit", "-a", "-m", branch)
    repo.git("switch", "-q", "-c", "cut", "main")
    write_shards(repo.path, 6, TENSORS)
    repo.theta("add", "-A")
    repo.theta("commit", "-m", "six shards")
    return repo


@pytest.fixture
def repo(origin: Repo, tmp_path: Path) -> Repo:
    return origin.copy(tmp_path / "repo")


def assert_merged(repo: Repo, **changed: float) -> None:
    assert len(list(repo.path.glob("model-*-of-00006.safetensors"))) == 6
    assert not list(repo.path.glob("model-*-of-00002.safetensors"))
    wanted = {f"layers.{name[1:]}.w": by for name, by in changed.items()}
    for name, value in read_shards(repo.path).items():
        np.testing.assert_array_equal(value, TENSORS[name] + np.float32(wanted.get(name, 0)), err_msg=name)
    assert_agreement(repo)


@pytest.mark.parametrize(("ours", "theirs"), [("cut", "train"), ("train", "cut")])
def test_training_follows_into_the_new_shards(repo: Repo, ours: str, theirs: str) -> None:
    repo.theta("switch", ours)
    assert "CONFLICT" not in repo.theta("merge", theirs, "--no-edit").stdout
    assert_merged(repo, l1=1, l4=2)
    assert repo.git("status", "--porcelain") == ""


def test_a_conflict_is_settled_in_the_new_shards(repo: Repo) -> None:
    repo.theta("merge", "train", "--no-edit")
    done = repo.theta("merge", "more", code=1)
    assert "layers.1.w" in done.stdout
    repo.theta("merge", "--continue", "-X", "theirs")
    assert_merged(repo, l1=3, l4=2)


def test_plain_git_leaves_what_resolve_settles(repo: Repo) -> None:
    assert repo.try_git("merge", "--no-edit", "train").returncode == 1
    assert "model-0" in repo.theta("status").stdout
    repo.theta("resolve")
    repo.git("commit", "-q", "--no-edit")
    assert_merged(repo, l1=1, l4=2)


def test_an_added_tensor_goes_to_the_last_shard(repo: Repo) -> None:
    repo.git("switch", "-q", "-c", "grown", "main")
    grown = {name: TENSORS[name] for name in list(TENSORS)[3:]} | {"layers.6.w": TENSORS["layers.0.w"] * 2}
    make_model(repo.path / "model-00002-of-00002.safetensors", grown)
    repo.theta("commit", "-a", "-m", "grown")
    repo.theta("switch", "cut")
    repo.theta("merge", "grown", "--no-edit")
    last = read_model(repo.path / "model-00006-of-00006.safetensors")
    np.testing.assert_array_equal(last["layers.6.w"], TENSORS["layers.0.w"] * 2)
    assert_agreement(repo)
