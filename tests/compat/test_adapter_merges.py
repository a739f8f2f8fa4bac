"""Adapters are merged as products, and PEFT's names for it are strategies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compat.inprocess import theta
from tests.support import Repo, make_model, read_model

Array = NDArray[Any]
MODULES = {"model.q": (12, 8), "model.up": (16, 8)}
ADAPTER, CONFIG = "lora/adapter_model.safetensors", "lora/adapter_config.json"
PREFIX = "base_model.model."


def tensors(seed: int, rank: int = 2) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    found = {}
    for module, (rows, columns) in MODULES.items():
        found[f"{PREFIX}{module}.lora_A.weight"] = rng.normal(size=(rank, columns)).astype("f4")
        found[f"{PREFIX}{module}.lora_B.weight"] = rng.normal(size=(rows, rank)).astype("f4")
    return found


def write(repo: Repo, seed: int, rank: int = 2, alpha: float = 3, **more: Any) -> None:
    make_model(repo.path / ADAPTER, tensors(seed, rank))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q"]} | more
    (repo.path / CONFIG).write_text(json.dumps(config, indent=2))


def products(repo: Repo) -> dict[str, Array]:
    """The products that PEFT would add to each module, by the files in the worktree."""
    config = json.loads((repo.path / CONFIG).read_text())
    file = read_model(repo.path / ADAPTER)
    found = {}
    for module in MODULES:
        a, b = (file[f"{PREFIX}{module}.lora_{part}.weight"].astype("f8") for part in "AB")
        assert a.shape[0] == config["r"]
        found[module] = config["lora_alpha"] / config["r"] * b @ a
    return found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Trained on from the same adapter: main, side and other (rank 2), and wide (rank 3, another alpha)."""
    repo = Repo.create(tmp_path_factory.mktemp("adapters") / "repo")
    theta(repo, "track", "*.safetensors")
    (repo.path / "lora").mkdir()
    write(repo, 0)
    theta(repo, "add", ".")
    theta(repo, "commit", "-qm", "base")
    for number, (name, rank, alpha) in enumerate((("side", 2, 3), ("other", 2, 3), ("wide", 3, 6)), 2):
        repo.git("switch", "-qc", name, "main")
        write(repo, number, rank, alpha)
        theta(repo, "commit", "-qam", name)
    repo.git("switch", "-q", "main")
    write(repo, 1)
    theta(repo, "commit", "-qam", "ours")
    return repo


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    return template.copy(tmp_path / "repo")


def updates(seed: int, rank: int = 2, alpha: float = 3) -> dict[str, Array]:
    file = tensors(seed, rank)
    pairs = {
        module: [file[f"{PREFIX}{module}.lora_{part}.weight"].astype("f8") for part in "AB"]
        for module in MODULES
    }
    return {module: alpha / rank * b @ a for module, (a, b) in pairs.items()}


def nearest(value: Array, rank: int) -> Array:
    u, s, v = np.linalg.svd(value)
    found: Array = (u[:, :rank] * s[:rank]) @ v[:rank]
    return found


def replays(repo: Repo) -> None:
    """The commit can be made again from its trailer, and all of it is sound."""
    assert repo.git("status", "--porcelain") == ""
    theta(repo, "merge", "--replay", "HEAD")
    theta(repo, "fsck", "--read-data")


def test_svd_merges_the_products_and_keeps_rank_and_configuration(repo: Repo) -> None:
    before = (repo.path / CONFIG).read_bytes()
    theta(repo, "merge", "-X", "svd:weight=[0.7,0.4]", "side", "-m", "both")
    assert (repo.path / CONFIG).read_bytes() == before
    one, other = updates(1), updates(2)
    for module, found in products(repo).items():
        np.testing.assert_allclose(found, nearest(0.7 * one[module] + 0.4 * other[module], 2), atol=1e-5)
    assert "peft:weight=[0.7,0.4]" in repo.git("log", "-1", "--format=%(trailers:key=Theta-Merge)")
    replays(repo)


@pytest.mark.parametrize(("how", "rank"), [("cat", 4), ("svd:rank=4", 4), ("svd:rank=1", 1)])
def test_a_result_of_another_rank_changes_the_configuration(repo: Repo, how: str, rank: int) -> None:
    theta(repo, "merge", "-X", how, "side", "-m", "both")
    config = json.loads((repo.path / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (rank, rank, ["q"])
    one, other = updates(1), updates(2)
    for module, found in products(repo).items():
        np.testing.assert_allclose(found, nearest(one[module] + other[module], rank), atol=1e-5)
    replays(repo)


def test_adapters_of_several_ranks_whose_configurations_conflict(repo: Repo) -> None:
    theta(repo, "merge", "-X", "cat", "wide", "-m", "both")
    one, other = updates(1), updates(4, 3, 6)
    for module, found in products(repo).items():
        np.testing.assert_allclose(found, one[module] + other[module], atol=1e-5)
    replays(repo)


def test_a_merge_that_git_began_is_settled_the_same(repo: Repo) -> None:
    assert repo.try_git("merge", "-q", "wide").returncode == 1
    theta(repo, "resolve", "-X", "cat")
    assert repo.git("ls-files", "-u") == ""
    theta(repo, "commit", "-qm", "by hand")
    one, other = updates(1), updates(4, 3, 6)
    for module, found in products(repo).items():
        np.testing.assert_allclose(found, one[module] + other[module], atol=1e-5)
    assert repo.git("status", "--porcelain") == ""


def test_three_branches_at_once(repo: Repo) -> None:
    theta(repo, "merge", "-X", "peft:type=linear,weight=[0.5,0.3,-0.2]", "side", "other", "-m", "three")
    files = [tensors(seed) for seed in (1, 2, 3)]
    roots = np.sqrt(np.array([0.5, 0.3, 0.2]))
    for module, found in products(repo).items():
        names = (f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight")
        a = sum(
            sign * root * file[names[0]] for sign, root, file in zip((1, 1, -1), roots, files, strict=True)
        )
        b = sum(root * file[names[1]] for root, file in zip(roots, files, strict=True))
        np.testing.assert_allclose(found, 1.5 * b @ a, atol=1e-5)
    replays(repo)


def test_dare_draws_by_the_seed(repo: Repo) -> None:
    theta(repo, "merge", "-X", "dare_ties_svd:density=0.5", "--seed", "4", "side", "-m", "thin")
    replays(repo)


def test_what_is_no_factor_stays_in_conflict(repo: Repo) -> None:
    plain = repo.path / "m.safetensors"
    for number, name in enumerate(("side", "main")):
        repo.git("switch", "-q", name)
        make_model(plain, {"w": np.full((3, 3), number, "f4")})
        theta(repo, "add", ".")
        theta(repo, "commit", "-qm", "a model")
    said = theta(repo, "merge", "-X", "svd", "side", code=1)
    assert "m.safetensors" in said.out + said.err
    assert repo.git("diff", "--name-only", "--diff-filter=U").split() == ["m.safetensors"]


@pytest.mark.parametrize("how", ["peft:type=linear,rank=3", "peft:type=linear"])
def test_factors_that_have_no_sum_are_refused(repo: Repo, how: str) -> None:
    head = repo.git("rev-parse", "HEAD")
    said = theta(repo, "merge", "-X", how, "wide", code=2)
    assert "rank" in said.err
    assert repo.git("rev-parse", "HEAD") == head
