"""A checkpoint that was cut short takes the place of the whole one only when that is asked for."""

from __future__ import annotations

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.story import MODEL, digest, edit, new_model
from tests.support import Repo

REASON = f"{MODEL} is no checkpoint any more: safetensors: the tensors end at byte"
STAGING = (("add", MODEL), ("add", "."), ("commit", "-a", "-m", "x"), ("commit", "-m", "x", MODEL))


@pytest.fixture
def cut(tracked: Repo) -> Repo:
    """A repository whose checkpoint in the worktree lacks its second half."""
    halve(tracked, MODEL)
    return tracked


def halve(repo: Repo, path: str) -> None:
    """Leave the first half of a file."""
    data = (repo.path / path).read_bytes()
    (repo.path / path).write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("line", STAGING, ids=" ".join)
def test_it_is_refused(cut: Repo, line: tuple[str, ...]) -> None:
    before, head = cut.git("ls-files", "-s"), cut.git("rev-parse", "HEAD")
    assert REASON in cut.theta(*line, code=3).stderr
    assert (cut.git("ls-files", "-s"), cut.git("rev-parse", "HEAD")) == (before, head)


def test_what_is_staged_already_does_not_let_it_in(tracked: Repo) -> None:
    edit(tracked, "layer.1.weight")
    tracked.theta("add", MODEL)
    halve(tracked, MODEL)
    assert REASON in tracked.theta("add", MODEL, code=3).stderr


def test_the_two_ways_on_that_are_named_work(cut: Repo) -> None:
    half = digest(cut)
    hint = cut.theta("add", MODEL, code=3).stderr
    assert f"'theta restore {MODEL}'" in hint
    assert f"'theta add --force {MODEL}'" in hint
    assert "tracked as plain bytes" in cut.theta("add", "--force", MODEL).stderr
    cut.theta("commit", "-m", "half")
    assert_agreement(cut, {MODEL: half})
    cut.theta("restore", "--source", "HEAD~", MODEL)
    whole = digest(cut)
    cut.theta("commit", "-a", "-m", "whole")  # plain bytes are no reason to ask
    halve(cut, MODEL)
    cut.theta("restore", MODEL)
    assert_agreement(cut, {MODEL: whole})


def test_it_is_told_and_its_tensors_are_not_called_deleted(cut: Repo) -> None:
    told = cut.theta("status").stdout + cut.theta("diff").stdout + cut.theta("diff", "--stats").stdout
    assert told.count("no checkpoint any more: safetensors: the tensors end at byte") == 3
    assert "deleted" not in told


def test_a_new_file_is_tracked_with_a_warning(tracked: Repo) -> None:
    new_model(tracked, "new.safetensors", 3)
    halve(tracked, "new.safetensors")
    assert "tracked as plain bytes" in tracked.theta("add", "new.safetensors").stderr


def test_plain_git_which_cannot_ask_stores_it_with_a_warning(cut: Repo) -> None:
    """A filter that fails would also stop ``git stash``, and a commit of every other file."""
    half = digest(cut)
    assert "tracked as plain bytes" in cut.try_git("stash").stderr
    cut.git("stash", "pop")
    assert digest(cut) == half
    assert "tracked as plain bytes" in cut.try_git("commit", "-q", "-a", "-m", "half").stderr
    assert_agreement(cut, {MODEL: half})


def test_what_git_took_is_told_of_by_each_command_that_tells_of_changes(cut: Repo) -> None:
    """It was ``1 added, 5 deleted of 6 tensors``, as if the tensors had been deleted on purpose."""
    told = f"{MODEL}: stored as plain bytes now, not as a checkpoint"
    cut.git("add", MODEL)
    for line in (
        ("status",),
        ("diff", "--cached"),
        ("commit", "-m", "half"),
        ("log", "-1", "--stat"),
        ("show",),
    ):
        shown = cut.theta(*line).stdout
        assert told in shown or told.removeprefix(f"{MODEL}: ") in shown, (line, shown)
