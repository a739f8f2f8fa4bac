"""Plain git, while a checkpoint is in conflict: what only looks works, what would stage is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, git_status
from tests.compat.inprocess import committed
from tests.compat.story import MODEL, TENSOR, digest, edit
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


_STOPS = ("cherry-pick", "revert", "rebase", "am")
_OUT = [("merge", "--abort"), *((name, word) for name in _STOPS for word in ("--abort", "--skip"))]
_RESETS = (("reset", "-q", "--hard"), ("reset", "-q", "--merge"), ("checkout", "-q", "-f", "HEAD"))


def _stop(repo: Repo, tmp_path: Path, name: str) -> None:
    """Let ``git NAME`` stop at a conflict of the checkpoint."""
    if name == "am":
        patch = repo.git("format-patch", "-1", "side", "-o", str(tmp_path))
        assert repo.try_git("am", "-q", "-3", patch).returncode
    elif name == "revert":
        committed(repo, (TENSOR, 3.0))
        assert repo.try_git("revert", "--no-edit", "HEAD~1").returncode
    else:
        assert repo.try_git(name, "side").returncode
    assert repo.git("ls-files", "-u", MODEL)


@pytest.mark.parametrize(
    ("by", "afterwards"),
    [*(("git", out) for out in _OUT), ("theta", ("am", "--abort")), ("theta", ("am", "--skip"))],
)
def test_a_stop_at_a_conflict_is_given_up(
    forked: Repo, tmp_path: Path, by: str, afterwards: tuple[str, ...]
) -> None:
    _stop(forked, tmp_path, afterwards[0])
    before = forked.git("rev-parse", "ORIG_HEAD" if afterwards[0] == "rebase" else "HEAD")
    run = forked.git if by == "git" else forked.theta
    run(*afterwards)
    assert git_status(forked) == []
    assert not forked.git("ls-files", "-u")
    wanted = "side" if afterwards == ("rebase", "--skip") else before
    assert forked.git("rev-parse", "HEAD") == forked.git("rev-parse", wanted)
    assert_agreement(forked, {MODEL: digest(forked)})


@pytest.mark.parametrize(
    ("name", "command"), [("stash", _RESETS[0]), *(("am", command) for command in _RESETS[1:])]
)
def test_a_reset_puts_a_checkpoint_in_conflict_back(
    forked: Repo, tmp_path: Path, name: str, command: tuple[str, ...]
) -> None:
    main = digest(forked)
    if name == "stash":
        forked.git("checkout", "-q", "side")
        edit(forked, TENSOR, 9.0)
        forked.git("stash", "-q")
        forked.git("checkout", "-q", "main")
        assert forked.try_git("stash", "pop").returncode
    else:
        _stop(forked, tmp_path, name)
    forked.git(*command)
    assert git_status(forked) == []
    assert_agreement(forked, {MODEL: main})


def test_conflict_markers_are_not_staged_into_another_index(stopped: Repo) -> None:
    done = stopped.try_git("add", MODEL, env={"GIT_INDEX_FILE": str(stopped.path / ".git" / "other")})
    assert done.returncode != 0
