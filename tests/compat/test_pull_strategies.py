"""``theta pull`` refuses strategies for tensors before it fetches, and names the commands that take them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.story import TENSOR, commit
from tests.support import Repo


@pytest.fixture
def behind(tracked: Repo, tmp_path: Path) -> Repo:
    """A clone whose remote has a commit more, which changed a tensor."""
    clone = tracked.clone(tmp_path / "clone")
    commit(tracked, TENSOR)
    return clone


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("--no-rebase -X average", "theta fetch && theta merge -X average"),
        ("--rebase -Xties:density=0.5", "theta fetch && theta rebase -X ties:density=0.5"),
        ("-X average origin main", "theta fetch origin main && theta merge -X average FETCH_HEAD"),
    ],
)
def test_a_strategy_for_tensors(behind: Repo, line: str, hint: str) -> None:
    before = behind.git("for-each-ref")
    refused = behind.theta("pull", *line.split(), code=2)
    assert f"hint: {hint}" in refused.stderr
    assert behind.git("for-each-ref") == before
    for command in hint.split(" && "):
        behind.theta(*command.split()[1:])


@pytest.mark.parametrize("line", ["-X theirs", "-X ignore-space-change", "-s ort -X ours"])
def test_those_of_git(behind: Repo, line: str) -> None:
    behind.theta("pull", "-q", "--no-rebase", *line.split())
    assert behind.git("rev-parse", "HEAD") == behind.git("rev-parse", "origin/main")


def test_one_that_there_is_not(behind: Repo) -> None:
    """The hint named a command that would refuse it."""
    refused = behind.theta("pull", "-X", "tises", code=2)
    assert refused.stderr == "error: unknown merge strategy 'tises'\nhint: did you mean ties?\n"
