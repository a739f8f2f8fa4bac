"""The file of ours that a merge leaves in conflict is not staged as the result: theirs would be lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, index_entries
from tests.compat.story import MODEL, combined, commit, digest, diverged, edit, run_either
from tests.support import Repo

BOTH, THEIRS = "layer.1.weight", "layer.2.weight"
SAID = f"{MODEL} is in conflict, and its file is all of ours, without what only theirs changed ({THEIRS})"

STOPPING = {
    "merge": ("merge", "--no-prompt", "side"),
    "cherry-pick": ("cherry-pick", "side"),
    "rebase": ("rebase", "main"),
}
STAGING = (
    ("theta", "add", MODEL),
    ("theta", "add", "."),
    ("theta", "commit", "-a", "-m", "x"),
    ("git", "add", MODEL),
    ("git", "add", "-u"),
    ("git", "commit", "-q", "-a", "-m", "x"),
)
TAKING_OURS = (
    ("git", "checkout", "--ours", MODEL),
    ("git", "checkout", "-q", "-2", MODEL),
    ("git", "restore", "--ours", MODEL),
    ("theta", "checkout", "--ours", MODEL),
    ("theta", "restore", "--ours", MODEL),
)


def words(line: tuple[str, ...]) -> str:
    """The name of a case."""
    return " ".join(line)


@pytest.fixture
def in_conflict(tracked: Repo) -> Repo:
    """A merge of theta's that stopped: both sides changed a tensor, and theirs another one, too."""
    stop(tracked, "merge")
    return tracked


def stop(repo: Repo, by: str) -> None:
    """Let a command of theta's stop with a conflict."""
    diverged(repo, BOTH, BOTH)
    repo.git("checkout", "-q", "side")
    edit(repo, THEIRS, 2.0)
    repo.git("commit", "-q", "--amend", "-a", "-m", "side")
    if by != "rebase":
        repo.git("checkout", "-q", "main")
    done = repo.theta(*STOPPING[by], code=None)
    assert done.returncode == 1, done.stderr
    assert {entry.stage for entry in index_entries(repo) if entry.path == MODEL} == {1, 2, 3}


@pytest.mark.parametrize("line", STAGING, ids=words)
@pytest.mark.parametrize("by", STOPPING)
def test_what_nobody_touched_is_not_staged(tracked: Repo, by: str, line: tuple[str, ...]) -> None:
    stop(tracked, by)
    before, head = digest(tracked), tracked.git("rev-parse", "HEAD")
    done = run_either(tracked, *line)
    assert done.returncode == (128 if line[0] == "git" else 1)
    assert SAID in done.stderr
    assert "'theta resolve' settles it" in done.stderr
    assert {entry.stage for entry in index_entries(tracked) if entry.path == MODEL} == {1, 2, 3}
    assert (digest(tracked), tracked.git("rev-parse", "HEAD")) == (before, head)


def test_resolve_keeps_what_only_theirs_changed(in_conflict: Repo, tmp_path: Path) -> None:
    in_conflict.theta("add", MODEL, code=1)
    in_conflict.theta("resolve", "-X", "ours", MODEL)
    in_conflict.theta("commit", "-m", "merged")
    assert_agreement(in_conflict, {MODEL: combined(in_conflict, tmp_path / "c", (BOTH, 1.0), (THEIRS, 2.0))})


@pytest.mark.parametrize("program", ["theta", "git"])
@pytest.mark.parametrize("line", TAKING_OURS, ids=words)
def test_ours_is_staged_when_it_was_asked_for(in_conflict: Repo, line: tuple[str, ...], program: str) -> None:
    ours = digest(in_conflict)
    assert run_either(in_conflict, *line).returncode == 0
    done = run_either(in_conflict, program, "add", MODEL)
    assert done.returncode == 0, done.stderr
    assert f"{MODEL} lacks what only theirs changed: {THEIRS}" in done.stderr
    in_conflict.theta("commit", "-m", "merged")
    assert_agreement(in_conflict, {MODEL: ours})


@pytest.mark.parametrize("program", ["theta", "git"])
def test_an_edited_file_is_staged_with_a_warning(in_conflict: Repo, program: str) -> None:
    edited = edit(in_conflict, BOTH, 0.5)
    done = run_either(in_conflict, program, "add", MODEL)
    assert done.returncode == 0, done.stderr
    assert f"{MODEL} lacks what only theirs changed: {THEIRS}" in done.stderr
    in_conflict.theta("commit", "-m", "merged")
    assert_agreement(in_conflict, {MODEL: edited})


def test_a_file_with_all_of_theirs_is_staged_silently(in_conflict: Repo) -> None:
    in_conflict.git("checkout", "--theirs", MODEL)
    assert in_conflict.theta("add", MODEL).stderr == ""


def test_the_files_beside_it_are_staged(in_conflict: Repo) -> None:
    in_conflict.write("notes.txt", "x\n")
    in_conflict.theta("add", "notes.txt")
    assert "notes.txt" in in_conflict.git("diff", "--cached", "--name-only").split()


@pytest.mark.parametrize(
    "line",
    [("git", "merge", "--abort"), ("theta", "merge", "--abort"), ("git", "reset", "-q", "--hard")],
    ids=words,
)
def test_giving_up_puts_ours_back(in_conflict: Repo, line: tuple[str, ...]) -> None:
    ours = digest(in_conflict)
    assert run_either(in_conflict, *line).returncode == 0
    assert_agreement(in_conflict, {MODEL: ours})
    assert commit(in_conflict, THEIRS, 3.0)
