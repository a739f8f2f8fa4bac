"""Running the commands that a page shows, and the repositories that pages speak of."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

import theta
from tests.docs.pages import Block
from tests.support import Repo, make_model, mutate, random_tensors

MODEL: Final = "model.safetensors"
SHAPES: Final = dict.fromkeys(
    ("embed.weight", "layers.0.weight", "layers.1.weight", "lm_head.weight"), (16, 16)
)
GITS_OWN: Final = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "init.defaultBranch",
    "GIT_CONFIG_VALUE_0": "master",
}
"""The configuration of somebody who has none: git calls the first branch ``master``."""


def train(repo: Repo, names: list[str], step: int) -> None:
    """Add noise to tensors of the model; a change of rank one to ``layers.0.weight``."""
    noise = np.random.default_rng(step).standard_normal((16, 16)).astype(np.float32)
    for name in names:
        change = np.outer(noise[0], noise[1]) / 64 if name == "layers.0.weight" else noise / 64
        mutate(repo.path / MODEL, name, partial(np.add, change.astype(np.float32)))


def run(repo: Repo, line: str, step: int, code: int = 0) -> str:
    """Run one line of a console block, which ends with ``code``; returns what was printed."""
    if line.startswith("# train "):
        train(repo, line.split()[2:], step)
        return ""
    words = shlex.split(line)
    if words[0] == "theta" and not {"&&", "|"} & set(words):
        return repo.theta(*words[1:], code=code, env=GITS_OWN).stdout
    assert words[0] in ("git", "theta", "model_signing"), line
    done = repo.run("bash", "-eo", "pipefail", "-c", line, env=GITS_OWN | {"PATH": os.environ["PATH"]})
    assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_all(
    repo: Repo,
    blocks: Iterable[Block],
    known: Mapping[str, str] | None = None,
    codes: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """Run all lines in their order, with the names of ``known`` replaced; returns what each printed.

    ``codes`` are those that other lines than the successful ones end with.
    """
    printed = {}
    lines = [line for block in blocks for line in block.commands]
    for step, line in enumerate(lines):
        text = line
        for name, value in (known or {}).items():
            text = re.sub(rf"(?<![\w/]){re.escape(name)}(?!\w)", value, text)
        printed[line] = run(repo, text, step, (codes or {}).get(line, 0))
    return printed


def stranger(place: Path) -> Repo:
    """An empty folder with a model in it."""
    place.mkdir()
    make_model(place / MODEL, random_tensors(SHAPES))
    return Repo(place)


def tracked(place: Path) -> Repo:
    """A repository with one commit of a model."""
    repo = Repo.create(place)
    make_model(repo.path / MODEL, random_tensors(SHAPES))
    repo.write("config.json", "{}\n")
    repo.theta("track", "*.safetensors")
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "base model")
    return repo


def with_history(place: Path) -> Repo:
    """Three versions of the model on main, and a branch ``side``, which is off the first one."""
    repo = tracked(place)
    repo.theta("branch", "side")
    for step in (1, 2):
        train(repo, ["layers.1.weight"], step)
        repo.write("config.json", f'{{"step": {step}}}\n')
        repo.theta("add", ".")
        repo.theta("commit", "-q", "-m", f"version {step}")
    repo.theta("switch", "-q", "side")
    train(repo, ["layers.1.weight"], 9)
    repo.theta("commit", "-q", "-am", "side")
    repo.theta("switch", "-q", "main")
    return repo


def with_runs(place: Path) -> Repo:
    """The same with steps 500 and 501 of run r1; it sends single objects."""
    repo = with_history(place)
    for key in ("allowFilter", "allowAnySHA1InWant"):
        repo.git("config", f"uploadpack.{key}", "true")
    with theta.open(repo.path) as opened, theta.Run(opened, "r1") as run_of:
        for step in (500, 501):
            values = random_tensors(SHAPES, step)
            run_of.save(step, {MODEL: values}, {"loss": 1 / step}).result()
    return repo
