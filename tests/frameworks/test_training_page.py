"""``training.md`` is true: the quick start for each library runs, and leaves a run to go on from."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

import theta
from tests.docs.pages import DOCS, Block, chosen
from tests.docs.shown import run_all, with_runs
from tests.support import Repo, frameworks

PAGE = DOCS / "training.md"
NEEDED = {
    "PyTorch": ("torch",),
    "transformers": ("transformers", "accelerate"),
    "torch.distributed.checkpoint": ("torch",),
    "Lightning": ("lightning",),
    "accelerate": ("accelerate",),
    "Keras": ("keras",),
    "JAX": ("jax",),
}

FINISHED = ("transformers", "Lightning", "Keras")
"""Their programs say how long the whole training is, so the second one has nothing to do."""


def test_every_library_of_the_page_is_tried() -> None:
    found = re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)
    assert found == ["Set up", *NEEDED, "Serving the steps"]


@pytest.mark.page("training", "console", 1)
def test_a_run_is_looked_at(tmp_path: Path, page_blocks: list[Block]) -> None:
    run_all(with_runs(tmp_path / "repo"), page_blocks)


@pytest.mark.page("training", "console", 0)
def test_setting_up_is_one_repository_and_one_library(repo: Repo, page_blocks: list[Block]) -> None:
    (block,) = page_blocks
    first, second = block.commands
    assert repo.run("bash", "-ec", first).returncode == 0
    assert (repo.path / "models" / ".git").is_dir()
    assert second == "pip install torch"


@pytest.mark.page("training", "python")
def test_every_quick_start_is_of_theta_as_it_is(page_blocks: list[Block]) -> None:
    """Programs parse, and modules of theta that they import are there; they run where their libraries are."""
    assert len(page_blocks) == len(NEEDED)
    for block in page_blocks:
        compile(block.text, str(block.key), "exec")
        imports = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Import)]
        names = [alias.name for node in imports for alias in node.names if alias.name.startswith("theta")]
        assert names
        assert all(importlib.util.find_spec(name) for name in names)


@pytest.mark.frameworks
@pytest.mark.page("training", "python")
@pytest.mark.parametrize("library", NEEDED)
def test_the_quick_start_runs_twice(
    library: str, repo: Repo, monkeypatch: pytest.MonkeyPatch, page_blocks: list[Block]
) -> None:
    """The second time it goes on where the first one ended."""
    programs = dict(zip(NEEDED, [block.text for block in page_blocks], strict=True))
    program = repo.write("train.py", programs[library])
    frameworks.need(*NEEDED[library])
    monkeypatch.chdir(repo.path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    ends = []
    for _ in range(2):
        done = frameworks.start("page_program.py", program)
        assert done.returncode == 0, done.stdout + done.stderr
        ends.append(last_step(repo))
    first, second = ends
    assert second == first if library in FINISHED else second > first > 0
    run_all(repo, chosen("training", "console", 1))


@pytest.mark.frameworks
@pytest.mark.page("training", "python", 2)
def test_the_program_for_several_processes_goes_on_with_them(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, page_blocks: list[Block]
) -> None:
    frameworks.need("torch")
    monkeypatch.chdir(repo.path)
    (block,) = page_blocks
    program = repo.write("train.py", block.text)
    ends = []
    for launcher in ((), ("-m", "torch.distributed.run", "--nproc-per-node", "2")):
        done = frameworks.start("page_program.py", program, launcher=launcher)
        ends.append(last_step(repo))  # gloo may abort a process that is at its end
        assert ends[-1] == 10 * len(ends), done.stdout + done.stderr


def last_step(repo: Repo) -> int:
    """The newest step of the run."""
    with theta.open(repo.path) as opened:
        last = theta.Run(opened, "r1").resume()
        assert last is not None and last.step is not None
        return last.step
