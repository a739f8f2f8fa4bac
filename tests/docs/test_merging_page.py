"""Every command of ``merging-workflows.md`` runs, in its order."""

from __future__ import annotations

import json
import re
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.compat.inprocess import theta
from tests.docs import shown
from tests.docs.pages import DOCS, Block
from tests.merging import test_build_moe
from tests.support import Repo, make_model, mutate, random_tensors

PAGE = DOCS / "merging-workflows.md"
SHAPES = {
    "embed.weight": (8, 8),
    "layers.0.weight": (8, 8),
    "layers.1.weight": (8, 8),
    "lm_head.weight": (8, 8),
}


def run(repo: Repo, line: str, step: int) -> None:
    """Run one line: a command of theta or git, or some training."""
    if trained := re.fullmatch(r"# train (.*)", line):
        for name in trained[1].split():
            noise = np.random.default_rng(step).standard_normal((8, 8)).astype(np.float32)
            mutate(repo.path / "model.safetensors", name, partial(np.add, noise))
    elif line.endswith(" || true"):
        assert repo.try_git(*shlex.split(line)[1:-2]).returncode == 1
    elif line.startswith("git "):
        repo.git(*shlex.split(line)[1:])
    else:
        assert line.startswith("theta ")
        theta(repo, *shlex.split(line)[1:])


@pytest.mark.page("merging-workflows", "console")
def test_every_command_runs(repo: Repo, page_blocks: list[Block]) -> None:
    make_model(repo.path / "model.safetensors", random_tensors(SHAPES))
    theta(repo, "track", "*.safetensors")
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", "base model")
    lines = [line for block in page_blocks for line in block.text.splitlines()]
    assert len(lines) > 40
    for step, line in enumerate(lines):
        assert line.startswith("$ ")
        run(repo, line[2:], step)
    assert repo.git("status", "--porcelain") == "?? adapter/"


@pytest.mark.page("merging-workflows", "text", 1)
def test_rounds_are_merged(tmp_path: Path, page_blocks: list[Block]) -> None:
    repo = shown.tracked(tmp_path / "repo")
    for step, name in enumerate(("alice", "bob", "carol")):
        repo.git("switch", "-q", "-c", name, "main")
        shown.train(repo, ["layers.1.weight"], step)
        repo.theta("commit", "-q", "-am", name)
    repo.git("switch", "-q", "main")
    shown.run_all(repo, page_blocks)
    assert len(repo.git("rev-list", "--parents", "-1", "HEAD").split()) == 4  # main is behind
    assert (repo.path / "model.momentum.safetensors").exists()


@pytest.mark.page("merging-workflows", "text", 2)
def test_experts_are_built(tmp_path: Path, page_blocks: list[Block]) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    repo.write("config.json", json.dumps(test_build_moe.CONFIG))
    np.save(repo.path / "gates.npy", np.ones((2, 2, 8), np.float32))
    for seed, name in enumerate(("main", "code", "maths", "law")):
        if name != "main":
            repo.git("switch", "-q", "-c", name, "main")
        make_model(repo.path / "model.safetensors", test_build_moe.model(seed))
        repo.theta("add", ".")
        repo.theta("commit", "-q", "-m", name)
    repo.git("switch", "-q", "main")
    (tmp_path / "moe").mkdir()
    other = repo.copy(tmp_path / "other")
    (block,) = page_blocks
    commit, write = block.commands
    shown.run(repo, commit, 0)
    assert "Theta-Build-Moe" in repo.git("log", "-1")
    shown.run(other, write, 0)
    assert (tmp_path / "moe" / "model.safetensors").exists()


def test_the_picture_is_of_the_prompt_as_it_is() -> None:
    """``python bench/merge_prompt.py`` draws it; what it shows must be what theta says today."""
    from theta.cli.panels import KEYS

    picture = (PAGE.parent / "merge-prompt.svg").read_text().replace("&#160;", " ")
    for key, word in KEYS:
        assert f"{key}</text>" in picture
        assert f" {word}" in picture
