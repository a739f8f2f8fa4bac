"""``git stash`` and ``pop``, with garbage collected in between."""

from __future__ import annotations

import pytest

from tests.compat.agreement import assert_agreement, git_status
from tests.compat.story import MODEL, digest, edit, new_model
from tests.support import Repo


@pytest.mark.parametrize("collect", [False, True])
def test_stash_and_pop(tracked: Repo, collect: bool) -> None:
    old = digest(tracked)
    new = edit(tracked, "layer.1.weight")
    tracked.git("stash")
    assert_agreement(tracked, {MODEL: old})
    assert git_status(tracked) == []
    if collect:
        tracked.git("gc", "-q", "--prune=now")
    tracked.git("stash", "pop")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f" M {MODEL}"]


def test_the_next_clean_keeps_what_a_stash_names(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.git("stash")
    for step in range(3):
        edit(tracked, "layer.0.weight", step + 1.0)
        tracked.git("status")
    tracked.git("checkout", "-q", MODEL)
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("stash", "pop")
    assert_agreement(tracked, {MODEL: new})


def test_two_stashes_come_back(tracked: Repo) -> None:
    first = edit(tracked, "layer.1.weight")
    tracked.git("stash")
    second = edit(tracked, "layer.0.weight")
    tracked.git("stash")
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("stash", "pop", "stash@{1}")
    assert_agreement(tracked, {MODEL: first})
    tracked.git("checkout", "-q", MODEL)
    tracked.git("stash", "pop")
    assert_agreement(tracked, {MODEL: second})


def test_stash_with_untracked_checkpoints(tracked: Repo) -> None:
    old, new = digest(tracked), edit(tracked, "layer.1.weight")
    other = new_model(tracked, "other.safetensors", 5)
    tracked.git("stash", "--include-untracked")
    assert not (tracked.path / "other.safetensors").exists()
    assert_agreement(tracked, {MODEL: old})
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("stash", "pop")
    assert_agreement(tracked, {MODEL: new, "other.safetensors": other})
    assert git_status(tracked) == [f" M {MODEL}", "?? other.safetensors"]


def test_stash_of_a_staged_checkpoint_with_its_index(tracked: Repo) -> None:
    staged = edit(tracked, "layer.1.weight")
    tracked.git("add", MODEL)
    new = edit(tracked, "layer.0.weight")
    tracked.git("stash")
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("stash", "pop", "--index")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f"MM {MODEL}"]
    tracked.git("commit", "-q", "-m", "staged")
    tracked.git("checkout", "-q", MODEL)
    assert_agreement(tracked, {MODEL: staged})


def test_stash_of_an_added_checkpoint(tracked: Repo) -> None:
    other = new_model(tracked, "other.safetensors", 5)
    tracked.git("add", "other.safetensors")
    tracked.git("stash")
    assert_agreement(tracked)
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("stash", "pop")
    assert_agreement(tracked, {"other.safetensors": other})


def test_stash_pop_through_theta_and_branch(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.theta("stash")
    assert_agreement(tracked)
    tracked.git("stash", "branch", "rescued")
    assert_agreement(tracked, {MODEL: new})


def test_pop_ends_as_gits_does_where_it_fails(tracked: Repo) -> None:
    """Without such an entry, with changes in the way, in conflict, and without any entry; the stash stays."""
    kept = "The stash entry is kept in case you need it again.\n"

    def popped(*words: str) -> str:
        """Pop by theta and by git; return what both said."""
        ours = tracked.theta("stash", "pop", "-q", *words, code=None)
        tracked.git("reset", "-q", "--mixed")
        theirs = tracked.try_git("stash", "pop", "-q", *words)
        assert ours.returncode == theirs.returncode != 0
        assert (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr)
        return ours.stdout

    tracked.write("code.py", "print('stashed')\n")
    tracked.git("stash", "-q")
    tracked.write("code.py", "print('ours')\n")
    assert [popped(*words) for words in (["stash@{7}"], ["7"], ["main"])] == [""] * 3
    assert [popped(*words) for words in ([], ["0"], ["--index"], ["refs/stash"])] == [kept] * 4
    tracked.git("commit", "-q", "-am", "ours")
    assert kept in tracked.theta("stash", "pop", code=1).stdout
    tracked.git("reset", "-q", "--hard")
    assert len(tracked.git("stash", "list").splitlines()) == 1
    tracked.git("stash", "drop", "-q")
    assert popped() == ""


def test_stash_pop_in_conflict_keeps_the_stash(tracked: Repo) -> None:
    edit(tracked, "layer.1.weight")
    tracked.git("stash")
    ours = edit(tracked, "layer.1.weight", 3.0)
    tracked.git("commit", "-q", "-am", "ours")
    assert tracked.try_git("stash", "pop").returncode == 1
    assert tracked.git("stash", "list") != ""
    tracked.git("reset", "-q", "--hard")
    assert_agreement(tracked, {MODEL: ours})
