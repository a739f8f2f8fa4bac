"""E1: a cherry-pick or revert that git was killed over, between any two of its steps, made by hand."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.reliability.harness import FILE, State, fsck, killed
from tests.support import Repo


@pytest.fixture(scope="module")
def origin(origin: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = origin.copy(tmp_path_factory.mktemp("origin") / "repo")
    repo.git("switch", "-q", "other")
    repo.write("two.py", "print('two')\n")
    repo.git("add", "two.py")
    repo.git("commit", "-q", "-m", "two")
    repo.theta("switch", "main")
    return repo


@pytest.fixture
def picked(origin: Repo, tmp_path: Path) -> State:
    """The state after both commits are picked and nothing is killed."""
    repo = origin.copy(tmp_path / "whole")
    repo.theta("cherry-pick", "main..other")
    return State.of(repo)


def begin(repo: Repo) -> None:
    """Leave the journal of a command that was killed after what comes next."""
    repo.theta("status")
    killed(repo)


def note(repo: Repo, name: str, text: str) -> None:
    """Write a file of git's directory, as old as HEAD's log."""
    log = repo.path / ".git/logs/HEAD"
    content = log.read_bytes()
    (repo.path / ".git" / name).write_text(f"{text}\n")
    log.write_bytes(content)


def listed(repo: Repo, head: str, *steps: str) -> None:
    """Leave the list of a sequence that began at ``head`` and has ``steps`` to do."""
    place = repo.path / ".git/sequencer"
    place.mkdir()
    for name, text in (("head", head), ("abort-safety", head), ("todo", "\n".join(steps))):
        (place / name).write_text(f"{text}\n")


def half(repo: Repo) -> tuple[str, str]:
    """Be killed as the second of two picks begins; return where it began, and the row of that pick."""
    head, second = repo.git("rev-parse", "HEAD"), repo.git("rev-parse", "other")
    begin(repo)
    repo.git("cherry-pick", "other~")
    listed(repo, head, f"pick {second} two")
    return head, f"pick {second} two"


SINGLE = {"cherry-pick": ("CHERRY_PICK_HEAD", "other"), "revert": ("REVERT_HEAD", "HEAD")}


@pytest.mark.parametrize("name", SINGLE)
def test_e1_a_commit_that_is_made_is_not_under_way(repo: Repo, name: str) -> None:
    sign, revision = SINGLE[name]
    commit = repo.git("rev-parse", revision)
    begin(repo)
    repo.git(name, *(["--no-edit"] if name == "revert" else []), commit)
    made = repo.git("rev-parse", "HEAD")
    note(repo, "MERGE_MSG", "a message of that commit")
    note(repo, sign, commit)
    assert f"{name} in progress" not in repo.theta("status").stdout
    for left in (sign, "MERGE_MSG"):
        assert not (repo.path / ".git" / left).exists()
    repo.write("code.py", "print('next')\n")
    repo.theta("commit", "-a", "-m", "next")
    assert repo.git("rev-parse", "HEAD~") == made


@pytest.mark.parametrize("name", SINGLE)
def test_e1_a_commit_that_is_not_made_stays_under_way(repo: Repo, name: str) -> None:
    sign, revision = SINGLE[name]
    commit, before = repo.git("rev-parse", revision), repo.git("rev-parse", "HEAD")
    begin(repo)
    repo.git(name, "--no-commit", commit)
    note(repo, "MERGE_MSG", "its message")
    (repo.path / ".git" / sign).write_text(f"{commit}\n")
    repo.theta("status")
    repo.theta(name, "--continue")
    assert repo.git("log", "-1", "--format=%s") == "its message"
    assert repo.git("rev-parse", "HEAD~") == before


def test_e1_a_pick_that_comes_to_nothing_stays_where_git_stops(repo: Repo) -> None:
    repo.theta("cherry-pick", "other")
    begin(repo)
    assert repo.try_git("cherry-pick", "other").returncode
    repo.theta("status")
    assert (repo.path / ".git/CHERRY_PICK_HEAD").exists()
    repo.theta("cherry-pick", "--skip")


def test_e1_the_second_pick_is_not_left_out(repo: Repo, picked: State) -> None:
    half(repo)
    repo.theta("status")
    repo.theta("cherry-pick", "--continue")
    assert State.of(repo) == picked
    assert not (repo.path / ".git/sequencer").exists()


def test_e1_a_second_pick_that_is_only_in_the_log_is_not_left_out(repo: Repo, picked: State) -> None:
    """Git writes the log of HEAD before it moves HEAD."""
    half(repo)
    head = repo.git("rev-parse", "HEAD")
    time.sleep(0.01)
    with (repo.path / ".git/logs/HEAD").open("a") as log:
        log.write(f"{head} {'1' * 40} Ada Tester <ada@example.com> 1112911993 +0000\tcherry-pick: two\n")
    repo.theta("status")
    repo.theta("cherry-pick", "--continue")
    assert State.of(repo) == picked


def test_e1_git_itself_goes_on_with_the_second_pick(repo: Repo, picked: State) -> None:
    half(repo)
    repo.theta("status")
    repo.git("cherry-pick", "--continue")
    assert State.of(repo) == picked


def test_e1_half_written_files_of_the_second_pick_are_put_back(repo: Repo, picked: State) -> None:
    half(repo)
    (repo.path / FILE).write_bytes(b"")
    repo.write("two.py", repo.git("show", "other:two.py") + "\n")
    repo.theta("status")
    assert not (repo.path / "two.py").exists()
    assert repo.git("status", "--porcelain") == ""
    repo.theta("cherry-pick", "--continue")
    assert State.of(repo) == picked


def test_e1_a_second_pick_that_is_in_the_index_is_taken_out(repo: Repo, picked: State) -> None:
    half(repo)
    repo.git("read-tree", "-m", "-u", "HEAD", "other^{tree}")
    (repo.path / ".git/AUTO_MERGE").write_text(repo.git("write-tree") + "\n")
    repo.theta("status")
    assert repo.git("status", "--porcelain") == ""
    repo.theta("cherry-pick", "--continue")
    assert State.of(repo) == picked


def test_e1_an_untracked_file_in_the_way_of_the_second_pick_stays(repo: Repo) -> None:
    repo.write("two.py", repo.git("show", "other:two.py") + "\n")
    time.sleep(0.01)
    half(repo)
    repo.theta("status")
    assert (repo.path / "two.py").exists()


def test_e1_both_picks_are_given_up(repo: Repo) -> None:
    before = State.of(repo)
    half(repo)
    repo.theta("status")
    repo.theta("cherry-pick", "--abort")
    assert State.of(repo) == before


def test_e1_a_pick_that_is_made_is_not_made_twice(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD")
    second = repo.git("rev-parse", "other")
    begin(repo)
    listed(repo, head, f"pick {repo.git('rev-parse', 'other~')} other", f"pick {second} two")
    time.sleep(0.01)
    repo.git("cherry-pick", "--no-commit", "other~")
    repo.git("commit", "-q", "-m", "other")
    repo.theta("status")
    repo.theta("cherry-pick", "--continue")
    assert repo.git("log", "-3", "--format=%s").split() == ["two", "other", "main"]


@pytest.mark.parametrize("commits", [0, 1])
def test_e1_a_sequence_without_a_list_is_over(repo: Repo, commits: int) -> None:
    begin(repo)
    if commits:
        repo.git("cherry-pick", "other~")
    (repo.path / ".git/sequencer").mkdir()
    repo.theta("status")
    repo.theta("cherry-pick", "other")
    fsck(repo)


def test_e1_commits_of_the_user_are_not_given_up(repo: Repo) -> None:
    half(repo)
    repo.write("mine.py", "print('mine')\n")
    repo.git("add", "mine.py")
    repo.git("commit", "-q", "-m", "mine")
    repo.theta("status")
    repo.theta("cherry-pick", "--abort", code=None)
    assert repo.git("log", "-1", "--format=%s") == "mine"


@pytest.mark.parametrize("name", ["merge", "cherry-pick"])
def test_e1_what_was_merged_within_a_second_is_given_up(repo: Repo, name: str) -> None:
    """Git gives up no merge of a file that an index edit marked as one to look at again."""
    before = State.of(repo)
    repo.git(name, "--no-commit", "other")
    if name == "cherry-pick":
        (repo.path / ".git/CHERRY_PICK_HEAD").write_text(repo.git("rev-parse", "other") + "\n")
    repo.theta("status")
    repo.git("update-index", "--refresh")
    second = (repo.path / "code.py").stat().st_mtime
    os.utime(repo.path / ".git/index", (second, second))
    (repo.path / FILE).touch()
    repo.theta(name, "--abort")
    assert State.of(repo) == before
