"""``python.md`` is true: its blocks run, one after the other, in a repository such as it speaks of."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.docs.pages import Block
from tests.support import Repo, make_model, random_tensors

MODEL = "model.safetensors"


@pytest.fixture
def training(tmp_path: Path) -> Repo:
    """Three commits on main, each of other values, and a worktree that was trained on."""
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    for step in range(4):
        tensors: dict[str, Any] = random_tensors(
            {"layers.0.q.weight": (64, 32), "layers.0.bias": (32,)}, step
        )
        tensors["lm_head.weight"] = random_tensors({"w": (40, 32)})["w"].astype(ml_dtypes.bfloat16)
        make_model(repo.path / MODEL, tensors)
        if step < 3:
            repo.theta("add", ".")
            repo.theta("commit", "-q", "-m", f"step {step}")
        if step == 1:
            repo.theta("switch", "-q", "-c", "rte")
            make_model(repo.path / MODEL, tensors | random_tensors({"layers.0.bias": (32,)}, 9))
            repo.theta("commit", "-q", "-a", "-m", "fine-tune on RTE")
            repo.theta("switch", "-q", "main")
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    return repo


def run(blocks: list[Block], repo: Repo, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    """The names that Python blocks leave, one after the other, and what they print."""
    monkeypatch.chdir(repo.path)
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with redirect_stdout(printed):
        for block in blocks:
            text = block.text.replace("https://example.com/models.git", repo.path.as_uri())
            exec(compile(text, str(block.key), "exec"), names)
    return names, printed.getvalue()


@pytest.mark.page("python", "python")
def test_the_page_runs(training: Repo, monkeypatch: pytest.MonkeyPatch, page_blocks: list[Block]) -> None:
    names, printed = run(page_blocks, training, monkeypatch)
    assert names["rows"].shape == (10, 32)
    assert names["whole"].dtype == ml_dtypes.bfloat16
    assert set(names["layer"]) == {"layers.0.q.weight", "layers.0.bias"}
    assert np.array_equal(names["bias"], random_tensors({"q": (64, 32), "b": (32,)}, 2)["b"])
    assert "step 2 model.safetensors 2 changed of 3 tensors" in printed
    assert "model.safetensors M layers.0.bias Numbers(" in printed
    assert "has no tensor lm_head.wieght" in printed
    assert list(names["report"].unstaged) == [MODEL]
    assert training.git("log", "-2", "--first-parent", "--format=%s").splitlines()[1] == "step 4000"
    assert names["result"].ending.name == "MERGED"
    assert training.git("status", "--porcelain") == ""
    assert names["plan"].ending.name == "REHEARSED"


@pytest.mark.page("README", "python")
def test_the_readme_runs(training: Repo, monkeypatch: pytest.MonkeyPatch, page_blocks: list[Block]) -> None:
    names, _ = run(page_blocks, training, monkeypatch)
    assert names["rows"].shape == (10, 32)
