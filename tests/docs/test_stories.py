"""Pages whose commands tell a story: each runs in its order, in a repository with a model."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from tests.docs.test_blocks import ROOT, blocks
from tests.support import Repo, make_model, mutate, random_tensors
from theta.errors import ExitCode

DOCS: Final = ROOT / "theta" / "docs"
SHAPES: Final = dict.fromkeys(
    ("embed.weight", "layers.0.weight", "layers.1.weight", "lm_head.weight"), (16, 16)
)
STORIES: Final = ("tutorial", "adapters", "reviews", "recovering")
ELSEWHERE: Final = ("merging-workflows", "migrating", "storage", "sync", "training")
"""Pages with commands that tests of their subject run."""


def train(repo: Repo, names: list[str], step: int) -> None:
    """Add noise to tensors of the model; a change of rank one to ``layers.0.weight``."""
    noise = np.random.default_rng(step).standard_normal((16, 16)).astype(np.float32)
    for name in names:
        change = np.outer(noise[0], noise[1]) / 64 if name == "layers.0.weight" else noise / 64
        mutate(repo.path / "model.safetensors", name, partial(np.add, change.astype(np.float32)))


def run(repo: Repo, line: str, step: int) -> str:
    """Run one line of a console block; returns what theta printed."""
    if line.startswith("# train "):
        train(repo, line.split()[2:], step)
        return ""
    program, *words = shlex.split(line)
    if program == "git":
        return repo.run("git", *words).stdout
    assert program == "theta", line
    return repo.theta(*words).stdout


def begun(repo: Repo, story: str) -> None:
    """Make the model, and the commits that every page but the tutorial has before it."""
    make_model(repo.path / "model.safetensors", random_tensors(SHAPES))
    if story != "tutorial":
        repo.theta("track", "*.safetensors")
        repo.theta("add", ".")
        repo.theta("commit", "-q", "-m", "base model")


@pytest.mark.parametrize("story", STORIES)
def test_every_command_runs(repo: Repo, story: str) -> None:
    begun(repo, story)
    lines = [line for block in blocks(DOCS / f"{story}.md", "console") for line in block.splitlines()]
    assert lines
    for step, line in enumerate(lines):
        assert line.startswith("$ ")
        run(repo, line[2:], step)


def test_the_tutorial_ends_with_what_it_says(repo: Repo) -> None:
    begun(repo, "tutorial")
    said = {}
    for block in blocks(DOCS / "tutorial.md", "console"):
        for step, line in enumerate(block.splitlines()):
            said[line[2:]] = run(repo, line[2:], step)
    assert len(repo.git("rev-list", "--parents", "-1", "main").split()) == 3
    assert "average" in said["theta merge --dry-run rte -X average"]
    assert "no problems" in said["theta fsck --read-data"]
    elsewhere = repo.path.parent / "elsewhere" / "model.safetensors"
    assert elsewhere.read_bytes() == (repo.path / "model.safetensors").read_bytes()


def test_every_page_with_commands_is_run() -> None:
    pages = {page.stem for page in DOCS.glob("*.md") if blocks(page, "console")}
    assert pages == set(STORIES) | set(ELSEWHERE)


def test_every_page_has_its_place_on_the_site() -> None:
    named = (ROOT / "mkdocs.yml").read_text().split()
    assert {page.name for page in DOCS.glob("*.md")} <= set(named)


def test_every_exit_code_has_its_line() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [(int(code), name.strip()) for code, name in rows] == [
        (code.value, code.name) for code in ExitCode
    ]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_pictures_and_pages_that_are_named_are_there(page: Path) -> None:
    import re

    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
        made = target in ("commands.md", "api.md")  # with each build of the site
        assert made or (page.parent / target).exists(), target
