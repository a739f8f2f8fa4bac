"""The code blocks of README and docs are true: commands run, examples parse."""

from __future__ import annotations

import ast
import hashlib
import re
import shlex

import numpy as np
import pytest
import yaml

from tests.docs.pages import Block, chosen
from tests.support import Repo, make_model, mutate, random_tensors
from tests.support.environment import ROOT
from theta.store.format import manifest, skeleton, tensor_tree


def run_line(repo: Repo, line: str) -> None:
    """Run one line of a console block; a remark about training is a training step."""
    words = shlex.split(line, comments=True)
    if not words:
        mutate(repo.path / "model.safetensors", "a.weight", lambda value: value * np.float32(1.5))
        return
    assert words[0] == "theta"
    repo.theta(*words[1:])


@pytest.mark.page("README", "console")
def test_the_readme_tells_a_story_that_runs(repo: Repo, page_blocks: list[Block]) -> None:
    make_model(repo.path / "model.safetensors", random_tensors({"a.weight": (8, 8), "b.weight": (4,)}))
    for block in page_blocks:
        for line in block.text.splitlines():
            assert line.startswith("$ ")
            run_line(repo, line[2:])
    assert "average" not in repo.theta("status").stdout


@pytest.mark.page("README", "")
def test_ci_runs_the_two_commands_of_the_readme(page_blocks: list[Block]) -> None:
    script = (ROOT / ".ci" / "run").read_text()
    lines = [block.text.rstrip("\n") for block in page_blocks]
    assert [f'readme_setup="{lines[0]}"', f'readme_tests="{lines[1]}"'] == re.findall(
        r"^readme_.*", script, re.M
    )


@pytest.mark.page("CONTRIBUTING", "")
def test_a_contributor_sets_up_as_the_readme_says(page_blocks: list[Block]) -> None:
    (block,) = page_blocks
    first, second = block.text.splitlines()
    assert first == chosen("README", "")[0].text.rstrip("\n").rpartition(" && ")[0]
    assert second == ".venv/bin/pip install pre-commit && .venv/bin/pre-commit install"
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert all(hook["id"] for source in config["repos"] for hook in source["hooks"])


@pytest.mark.page("format", "text")
def test_examples_of_the_format_parse(page_blocks: list[Block]) -> None:
    checkpoint, grouped, parts = (block.text for block in page_blocks)
    assert manifest.parse(checkpoint.encode()).data == checkpoint.encode()
    (group,) = manifest._group_lines(grouped.splitlines())
    assert group.text() == grouped
    assert sum(item.length for item in skeleton.segments_of(parts.encode())) == 10240 + 3145728 + 8192


@pytest.mark.page("format", "")
def test_the_digest_of_a_value_is_that_of_the_formula(page_blocks: list[Block]) -> None:
    """The terms of the formula are replaced by those of a tensor, and what is left is the hash's input."""
    (block,) = page_blocks
    raw = np.arange(6, dtype=np.float32).tobytes()
    values = {
        "dtype": b"f32",
        'extents joined by ", "': b"2, 3",
        "for each chunk: its length (8 bytes)": len(raw).to_bytes(8, "little"),
        "SHA-256 of its raw bytes (32 bytes)": hashlib.sha256(raw).digest(),
    }
    hashed = b""
    for term in re.split(r"\s*\|\|\s*", block.text.strip()):
        hashed += values[term] if term in values else ast.literal_eval(term).encode()
    found = tensor_tree.value_digest("f32", (2, 3), tensor_tree.cut(raw, "f32", (2, 3)))
    assert hashlib.sha256(hashed).hexdigest() == found
