"""The code blocks of README and docs are true: commands run, examples parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from tests.support import Repo, make_model, mutate, random_tensors
from theta.store.format import manifest, skeleton

ROOT = Path(__file__).parents[2]
FORMAT = ROOT / "theta" / "docs" / "format.md"


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of ``path`` in ``language`` ("" for none)."""
    found = re.findall(r"^```([a-z]*)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [body for kind, body in found if kind == language]


def run_line(repo: Repo, line: str) -> None:
    """Run one line of a console block; a remark about training is a training step."""
    words = shlex.split(line, comments=True)
    if not words:
        mutate(repo.path / "model.safetensors", "a.weight", lambda value: value * np.float32(1.5))
        return
    assert words[0] == "theta"
    repo.theta(*words[1:])


def test_the_readme_tells_a_story_that_runs(repo: Repo) -> None:
    make_model(repo.path / "model.safetensors", random_tensors({"a.weight": (8, 8), "b.weight": (4,)}))
    for block in blocks(ROOT / "README.md", "console"):
        for line in block.splitlines():
            assert line.startswith("$ ")
            run_line(repo, line[2:])
    assert "average" not in repo.theta("status").stdout


def test_the_readme_has_two_commands() -> None:
    lines = [line for block in blocks(ROOT / "README.md", "") for line in block.splitlines()]
    assert len(lines) == 2
    script = (ROOT / ".ci" / "run").read_text()
    assert "README" in script or all(line in script for line in lines)


@pytest.mark.parametrize("number", range(3))
def test_examples_of_the_format_parse(number: int) -> None:
    text = blocks(FORMAT, "text")[number].encode()
    if number == 0:
        found = manifest.parse(text)
        assert found.data == text
    elif number == 1:
        (group,) = manifest._group_lines(text.decode().splitlines())
        assert group.text() == text.decode()
    else:
        segments = list(skeleton.segments_of(text))
        assert sum(item.length for item in segments) == 10240 + 3145728 + 8192
