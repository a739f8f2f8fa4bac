"""Plain git, while a checkpoint is in conflict: what only looks works, what would stage is refused."""

from __future__ import annotations

import pytest

from tests.compat.story import MODEL
from tests.support import Repo


@pytest.fixture
def stopped(forked: Repo) -> Repo:
    done = forked.try_git("merge", "side")
    assert done.returncode == 1
    assert done.stderr == ""
    return forked


@pytest.mark.parametrize(
    "command",
    [
        ("diff",),
        ("diff", "HEAD"),
        ("diff", "--stat"),
        ("diff", "--name-only", "--diff-filter=U"),
        ("blame", MODEL),
        ("checkout", "--conflict=diff3", MODEL),
        ("status", "--short"),
    ],
    ids=" ".join,
)
def test_f3_commands_that_look_at_a_conflict_work_and_are_silent(
    stopped: Repo, command: tuple[str, ...]
) -> None:
    done = stopped.try_git(*command)
    assert done.returncode == 0, done.stderr
    assert "theta" not in done.stderr.replace(".theta/", "")


def test_f3_git_diff_shows_the_versions_of_the_tensor(stopped: Repo) -> None:
    shown = stopped.git("diff")
    assert "++<<<<<<< HEAD" in shown
    assert len([row for row in shown.splitlines() if "sha256:" in row and row[:2] in (" +", "+ ")]) == 2


@pytest.mark.parametrize("command", [("add", MODEL), ("commit", "-am", "x"), ("add", "-A")], ids=" ".join)
def test_f3_conflict_markers_are_never_staged(stopped: Repo, command: tuple[str, ...]) -> None:
    before = stopped.git("ls-files", "-s")
    done = stopped.try_git(*command)
    assert done.returncode != 0
    assert f"{MODEL} is in conflict; 'theta resolve' settles it" in done.stderr
    assert stopped.git("ls-files", "-s") == before


def test_conflict_markers_are_not_staged_into_another_index(stopped: Repo) -> None:
    done = stopped.try_git("add", MODEL, env={"GIT_INDEX_FILE": str(stopped.path / ".git" / "other")})
    assert done.returncode != 0
