"""``training.md`` is true: the quick start for each library runs, and leaves a run to go on from."""

from __future__ import annotations

import re
import shlex

import pytest

import theta
from tests.docs.test_blocks import ROOT, blocks
from tests.support import Repo, frameworks

PAGE = ROOT / "theta" / "docs" / "training.md"
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


@pytest.mark.frameworks
@pytest.mark.parametrize("library", NEEDED)
def test_the_quick_start_runs_twice(library: str, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time it goes on where the first one ended."""
    frameworks.need(*NEEDED[library])
    monkeypatch.chdir(repo.path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    ends = []
    for _ in range(2):
        done = frameworks.start("page_program.py", library)
        assert done.returncode == 0, done.stdout + done.stderr
        ends.append(last_step(repo))
    first, second = ends
    assert second == first if library in FINISHED else second > first > 0
    run_what_looks_at_it(repo)


@pytest.mark.frameworks
def test_the_program_for_several_processes_goes_on_with_them(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    frameworks.need("torch")
    monkeypatch.chdir(repo.path)
    ends = []
    for launcher in ((), ("-m", "torch.distributed.run", "--nproc-per-node", "2")):
        done = frameworks.start("page_program.py", "torch.distributed.checkpoint", launcher=launcher)
        ends.append(last_step(repo))  # gloo may abort a process that is at its end
        assert ends[-1] == 10 * len(ends), done.stdout + done.stderr


def run_what_looks_at_it(repo: Repo) -> None:
    """The commands that the page has for a run that is there."""
    lines = [line for block in blocks(PAGE, "console") for line in block.splitlines()]
    words = [shlex.split(line, comments=True)[1:] for line in lines]
    commands = [line[1:] for line in words if line[0] == "theta"]
    assert len(commands) == 4
    for command in commands:
        repo.theta(*command)


def last_step(repo: Repo) -> int:
    """The newest step of the run."""
    with theta.open(repo.path) as opened:
        last = theta.Run(opened, "r1").resume()
        assert last is not None and last.step is not None
        return last.step
