"""Every command of ``merging-workflows.md`` runs, in its order."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import numpy as np

from tests.compat.inprocess import theta
from tests.support import Repo, make_model, mutate, random_tensors

PAGE = Path(__file__).parents[2] / "theta" / "docs" / "merging-workflows.md"
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


def test_every_command_runs(repo: Repo) -> None:
    make_model(repo.path / "model.safetensors", random_tensors(SHAPES))
    theta(repo, "track", "*.safetensors")
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", "base model")
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 40
    for step, line in enumerate(lines):
        assert line.startswith("$ ")
        run(repo, line[2:], step)
    assert repo.git("status", "--porcelain") == "?? adapter/"


def test_the_picture_is_of_the_prompt_as_it_is() -> None:
    """``python bench/merge_prompt.py`` draws it; what it shows must be what theta says today."""
    from theta.cli.panels import KEYS

    picture = (PAGE.parent / "merge-prompt.svg").read_text().replace("&#160;", " ")
    for key, word in KEYS:
        assert f"{key}</text>" in picture
        assert f" {word}" in picture
