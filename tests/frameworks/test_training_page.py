"""``training.md`` is true: the quick start for each library runs, and leaves a run to go on from."""

from __future__ import annotations

import re

import pytest

import theta
from tests.docs.test_blocks import ROOT
from tests.support import Repo, frameworks

PAGE = ROOT / "theta" / "docs" / "training.md"
NEEDED = {
    "transformers": ("transformers", "accelerate"),
    "torch.distributed.checkpoint": ("torch",),
    "Lightning": ("lightning",),
    "accelerate": ("accelerate",),
    "Keras": ("keras",),
    "JAX": ("jax",),
}


def test_every_library_of_the_page_is_tried() -> None:
    assert re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE) == [*NEEDED, "Serving the steps"]


@pytest.mark.frameworks
@pytest.mark.parametrize("library", NEEDED)
def test_the_quick_start_runs_twice(library: str, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time it goes on where the first one ended."""
    frameworks.need(*NEEDED[library])
    monkeypatch.chdir(repo.path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for _ in range(2):
        done = frameworks.start("page_program.py", library)
        assert done.returncode == 0, done.stdout + done.stderr
    with theta.open(repo.path) as opened:
        assert theta.Run(opened, "r1").resume() is not None
