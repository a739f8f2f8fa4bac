"""``theta diff`` and ``theta show`` tell of an adapter's updates, module by module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compat.inprocess import theta
from tests.compat.test_processes import gits
from tests.support import Repo, make_model
from theta.porcelain.look.adapter_updates import ModuleUpdate

Array = NDArray[Any]
PREFIX = "base_model.model."
ADAPTER, CONFIG = "lora/adapter_model.safetensors", "lora/adapter_config.json"
RANDOM = np.random.default_rng(3)
WEIGHTS = {f"model.{name}.weight": RANDOM.normal(size=(12, 8)).astype("f4") for name in ("q", "k", "v")}
A, B = RANDOM.normal(size=(4, 8)), RANDOM.normal(size=(12, 4))
TURN = np.array([[2.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0], [1, 0, 0, 1]])


def write(repo: Repo, factors: dict[str, tuple[Array, Array]], alpha: float, rank: int = 4) -> None:
    tensors = {}
    for module, (a, b) in factors.items():
        tensors[f"{PREFIX}model.{module}.lora_A.weight"] = a.astype("f4")
        tensors[f"{PREFIX}model.{module}.lora_B.weight"] = b.astype("f4")
    tensors[f"{PREFIX}model.norm.weight"] = np.full(3, alpha, "f4")
    make_model(repo.path / ADAPTER, tensors)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha}
    (repo.path / CONFIG).write_text(json.dumps(config))


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """``q`` in other factors of the same product, ``k`` half as long, and new in the worktree ``v``."""
    repo = Repo.create(tmp_path_factory.mktemp("adapters") / "repo")
    theta(repo, "track", "*.safetensors")
    (repo.path / "lora").mkdir()
    make_model(repo.path / "base.safetensors", WEIGHTS)
    write(repo, {"q": (A, B), "k": (A, B)}, 4)
    theta(repo, "add", ".")
    theta(repo, "commit", "-qm", "one")
    turned = np.linalg.inv(TURN) @ A, B @ TURN
    write(repo, {"q": turned, "k": (A / 4, B)}, 8)
    theta(repo, "commit", "-qam", "two")
    single = np.zeros((4, 8))
    single[0] = A[0]
    write(repo, {"q": turned, "k": (A / 4, B), "v": (single, B)}, 8)
    return repo


def modules(repo: Repo, *args: str) -> dict[str, ModuleUpdate]:
    (found,) = json.loads(theta(repo, "diff", "--json", *args, "--", ADAPTER).out)["theta.diff/v1"]
    return {row["module"]: ModuleUpdate(**row) for row in found["modules"]}


def test_versions_are_compared_as_products(repo: Repo) -> None:
    found = modules(repo, "HEAD~", "HEAD")
    length = float(np.linalg.norm(B @ A))
    q, k = found["model.q"], found["model.k"]
    assert (q.old_rank, q.rank, k.rank) == (4, 4, 4)
    assert q.old_norm == pytest.approx(length, rel=1e-5)
    assert q.norm == pytest.approx(2 * length, rel=1e-5)  # alpha is twice as large
    assert q.relative == pytest.approx(1, abs=1e-5)
    assert q.cosine == pytest.approx(1, abs=1e-6)
    assert k.norm == pytest.approx(length / 2, rel=1e-5)
    assert k.relative == pytest.approx(0.5, abs=1e-5)
    assert k.cosine == pytest.approx(1, abs=1e-6)
    assert q.scaled
    assert q.of_base is None
    told = theta(repo, "diff", "HEAD~", "HEAD", "--", ADAPTER).out
    assert "lora_A" not in told
    assert "model.norm.weight" in told  # no factor: as it was
    assert "‖sBA‖" in told


def test_the_worktree_and_the_weights_that_are_updated(repo: Repo) -> None:
    """Changes that are not committed are compared too; a module of one factor that matters has rank one."""
    found = modules(repo, "--stats")
    assert list(found) == ["model.v"]
    v = found["model.v"]
    norm = 2 * float(np.linalg.norm(np.outer(B[:, 0], A[0])))
    assert (v.old_rank, v.rank, v.old_norm, v.cosine) == (None, 1, None, None)
    assert v.norm == pytest.approx(norm, rel=1e-5)
    assert v.of_base == pytest.approx(norm / float(np.linalg.norm(WEIGHTS["model.v.weight"])), rel=1e-5)
    chosen = json.loads(theta(repo, "diff", "--json", "--tensor", "*norm*").out)["theta.diff/v1"]
    assert not any("modules" in row for row in chosen)


def test_show_tells_of_modules(repo: Repo, tmp_path: Path) -> None:
    shown = theta(repo, "show", f"HEAD:{ADAPTER}").out
    assert f"{2 * np.linalg.norm(B @ A):.4g}" in shown
    commit = theta(repo, "show", "HEAD").out
    assert "model.q" in commit
    assert "lora_A" not in commit


@pytest.mark.parametrize("config", ["missing", "another rank"])
def test_an_adapter_without_a_scale_is_told_without(repo: Repo, tmp_path: Path, config: str) -> None:
    other = repo.copy(tmp_path / "repo")
    if config == "missing":
        (other.path / CONFIG).unlink()
    else:
        write(other, {"q": (A, B)}, 8, rank=5)
    found = modules(other, "HEAD")
    chosen = found["model.v" if config == "missing" else "model.q"]
    assert not chosen.scaled
    assert "‖BA‖" in theta(other, "diff", "HEAD", "--", ADAPTER).out


def test_log_with_patches_shows_the_updates_of_each_commit(repo: Repo) -> None:
    told = repo.theta("log", "-p", "--format=%s").stdout
    second, _, first = told.partition("\none\n")
    assert second.startswith("two\n")
    assert "‖sBA‖" in second
    assert "model.k" in second
    assert "lora_A" not in told.replace("lora_alpha", "")
    assert '+{"peft_type"' in second  # the configuration, which git compares
    assert "model.q" in first
    only = repo.theta("log", "-p", "--oneline", "-1", "--", "lora").stdout
    assert "model.k" in only
    assert "base.safetensors" not in only
    assert "‖sBA‖" not in repo.theta("log", "-p", "--", "base.safetensors").stdout


def test_log_with_patches_asks_git_once_for_commits_of_checkpoints_alone(repo: Repo, tmp_path: Path) -> None:
    other = repo.copy(tmp_path / "repo")
    theta(other, "restore", ADAPTER)
    counts = []
    for seed in range(6):
        if seed:
            write(other, {"q": (A * seed, B), "k": (A, B)}, 8)
            theta(other, "commit", "-qam", f"step {seed}")
        told = gits(other, tmp_path / "trace", "theta", "log", "-p", "--oneline", f"-{seed + 1}")
        counts.append(len(told))
    assert np.diff(counts[1:]).tolist() == [1] * 4, counts


def test_log_with_other_options_is_left_to_git(repo: Repo) -> None:
    assert "‖sBA‖" not in repo.theta("log", "-p", "--word-diff").stdout
    assert "lora_A" in repo.theta("log", "-p", "--word-diff").stdout
