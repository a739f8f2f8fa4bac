"""E1: a rebase that git was killed over loses no commit, whatever moment it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.harness import FILE, State, fsck
from tests.support import Repo


@pytest.fixture
def wanted(origin: Repo, tmp_path: Path) -> State:
    """What the rebase comes to when nobody kills it."""
    repo = origin.copy(tmp_path / "whole")
    repo.theta("rebase", "other")
    return State.of(repo)


def begun(repo: Repo) -> Path:
    """Leave the rebase as git does that is killed when it has just begun to apply its one commit."""
    repo.git("rebase", "-i", "other", env={"GIT_SEQUENCE_EDITOR": "sed -i '1i break'"})
    place = repo.path / ".git" / "rebase-merge"
    step = f"pick {repo.git('rev-parse', 'main')} main\n"
    (place / "git-rebase-todo").write_text("")
    (place / "done").write_text(f"break\n{step}")
    return place


def test_e1_a_commit_that_was_being_applied_is_applied(repo: Repo, wanted: State) -> None:
    begun(repo)
    repo.theta("rebase", "--continue")
    assert State.of(repo) == wanted
    fsck(repo)


def test_e1_half_written_files_of_that_commit_are_put_back_first(repo: Repo, wanted: State) -> None:
    begun(repo)
    (repo.path / FILE).write_bytes(b"")
    repo.git("rm", "-q", "--cached", "code.py")
    repo.theta("rebase", "--continue")
    assert State.of(repo) == wanted


def test_e1_a_change_of_the_users_is_not_overwritten_by_that(repo: Repo, wanted: State) -> None:
    begun(repo)
    repo.write("code.py", "print('mine')\n")
    done = repo.theta("rebase", "--continue", code=3)
    assert "code.py was changed since" in done.stderr
    assert (repo.path / "code.py").read_text() == "print('mine')\n"
    repo.git("checkout", "-q", "code.py")
    repo.theta("rebase", "--continue")
    assert State.of(repo) == wanted


def test_e1_a_rebase_that_was_not_begun_says_so(repo: Repo, wanted: State) -> None:
    place = repo.path / ".git" / "rebase-merge"
    place.mkdir()
    names = {"head-name": "refs/heads/main", "onto": "other", "orig-head": "main"}
    for name, revision in names.items():
        text = revision if name == "head-name" else repo.git("rev-parse", revision)
        (place / name).write_text(f"{text}\n")
    before = State.of(repo)
    assert "the rebase was not begun" in repo.theta("rebase", "--continue").stdout
    assert State.of(repo) == before
    repo.theta("rebase", "other")
    assert State.of(repo) == wanted


def test_e1_a_rebase_whose_branch_has_moved_is_concluded(repo: Repo, wanted: State) -> None:
    head = repo.git("rev-parse", "main")
    repo.git("rebase", "-i", "other", env={"GIT_SEQUENCE_EDITOR": "sed -i '$a break'"})
    repo.git("update-ref", "refs/heads/main", "HEAD", head)
    (repo.path / ".git" / "rebase-merge" / "git-rebase-todo").write_text("")
    assert "is concluded" in repo.theta("rebase", "--continue").stdout
    assert State.of(repo) == wanted
    assert repo.git("status", "--porcelain") == ""
