"""Agreement after each of theta's own commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, assert_history, git_status
from tests.compat.made import diverged
from tests.compat.story import MODEL, combined, commit, digest, edit, new_model
from tests.support import Repo


def test_looking_changes_nothing(tracked: Repo) -> None:
    commit(tracked, "layer.0.weight")
    new = edit(tracked, "layer.1.weight")
    looks = ["status", "diff", "diff HEAD~1 HEAD", "log", "show", f"show HEAD:{MODEL}", "ls-files", "fsck"]
    for command in [*looks, "branch", "tag", "track", "help"]:
        tracked.theta(*command.split())
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f" M {MODEL}"]


def test_track_and_add_and_commit(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    assert_agreement(repo)
    first = new_model(repo)
    repo.theta("add", MODEL)
    assert_agreement(repo, {MODEL: first})
    assert git_status(repo) == ["A  .gitattributes", f"A  {MODEL}"]
    repo.theta("commit", "-m", "model")
    assert_agreement(repo, {MODEL: first})
    assert git_status(repo) == []


def test_init_then_first_commit(tmp_path: Path) -> None:
    Repo(tmp_path).theta("init", "new")
    repo = Repo(tmp_path / "new")
    assert_agreement(repo)
    repo.theta("track", "*.safetensors")
    first = new_model(repo)
    repo.theta("add", "-A")
    assert_agreement(repo, {MODEL: first})
    repo.theta("commit", "-m", "root")
    assert_agreement(repo, {MODEL: first})


@pytest.mark.parametrize("flags", [["-a"], ["-i", MODEL], [MODEL], ["--amend", "-a"], ["-n", "-a"]])
def test_commit(tracked: Repo, flags: list[str]) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.theta("commit", "-m", "edit", *flags)
    assert_agreement(tracked, {MODEL: new})
    assert_history(tracked)
    assert git_status(tracked) == []


def test_untrack_and_track_again(tracked: Repo) -> None:
    old = digest(tracked)
    tracked.theta("untrack", "*.safetensors")
    tracked.theta("commit", "-q", "-m", "plain")
    assert_agreement(tracked, {MODEL: old})
    assert tracked.git("ls-files", ".theta") == ""
    tracked.theta("track", "*.safetensors")
    tracked.theta("add", MODEL)
    tracked.theta("commit", "-q", "-m", "tracked")
    assert_agreement(tracked, {MODEL: old})
    tracked.git("checkout", "-q", "HEAD~1")
    assert digest(tracked) == old
    assert theta_and_git_are_clean(tracked)
    tracked.git("checkout", "-q", "main")
    assert_agreement(tracked, {MODEL: old})


def theta_and_git_are_clean(repo: Repo) -> bool:
    return repo.theta("status", "--porcelain").stdout == "" == repo.git("status", "--porcelain")


def test_rm_mv_and_restore(tracked: Repo) -> None:
    old = digest(tracked)
    tracked.theta("mv", MODEL, "moved.safetensors")
    assert_agreement(tracked, {"moved.safetensors": old})
    edit(tracked, "layer.1.weight", path="moved.safetensors")
    tracked.theta("add", "moved.safetensors")
    assert_agreement(tracked)
    tracked.theta("restore", "--staged", "--worktree", "--source", "HEAD", MODEL)
    assert_agreement(tracked, {MODEL: old})
    tracked.theta("rm", "-q", "-f", "moved.safetensors")
    assert_agreement(tracked, {MODEL: old})
    tracked.theta("rm", "-q", "--cached", MODEL)
    assert_agreement(tracked, {MODEL: old})
    assert git_status(tracked) == [f"?? {MODEL}", f"D  {MODEL}"]


def test_restore_staged_and_worktree(tracked: Repo) -> None:
    old = digest(tracked)
    new = edit(tracked, "layer.1.weight")
    tracked.theta("add", MODEL)
    tracked.theta("restore", "--staged", MODEL)
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f" M {MODEL}"]
    tracked.theta("restore", MODEL)
    assert_agreement(tracked, {MODEL: old})
    (tracked.path / MODEL).unlink()
    tracked.theta("restore", ".")
    assert_agreement(tracked, {MODEL: old})


def test_switch_and_checkout_and_branch(tracked: Repo) -> None:
    main, side = diverged(tracked, "layer.1.weight", "layer.0.weight")
    tracked.theta("switch", "-q", "side")
    assert_agreement(tracked, {MODEL: side})
    tracked.theta("checkout", "-q", "main")
    assert_agreement(tracked, {MODEL: main})
    tracked.theta("checkout", "side", "--", MODEL)
    assert_agreement(tracked, {MODEL: side})
    tracked.theta("reset", "-q", "--hard")
    tracked.theta("checkout", "-q", "-b", "new", "HEAD~1")
    assert_agreement(tracked)
    tracked.theta("switch", "-q", "--detach", "main")
    assert_agreement(tracked, {MODEL: main})
    tracked.theta("tag", "v1")
    tracked.theta("branch", "-D", "side")
    assert_agreement(tracked, {MODEL: main})


@pytest.mark.parametrize("mode", ["--hard", "--soft", "--mixed", "--keep", "--merge"])
def test_reset(tracked: Repo, mode: str) -> None:
    old = digest(tracked)
    new = commit(tracked, "layer.1.weight")
    tracked.theta("reset", "-q", mode, "HEAD~1")
    kept = mode in ("--soft", "--mixed")
    assert_agreement(tracked, {MODEL: new if kept else old})


def test_merge_of_different_tensors(tracked: Repo, tmp_path: Path) -> None:
    diverged(tracked, "layer.1.weight", "layer.2.weight")
    tracked.theta("merge", "--no-edit", "side")
    want = combined(tracked, tmp_path / "combined", ("layer.1.weight", 1.0), ("layer.2.weight", 2.0))
    assert_agreement(tracked, {MODEL: want})
    assert_history(tracked)


@pytest.mark.parametrize("strategy", ["ours", "theirs", "base", "average"])
def test_merge_of_the_same_tensor(tracked: Repo, tmp_path: Path, strategy: str) -> None:
    diverged(tracked, "layer.1.weight", "layer.1.weight")
    tracked.theta("merge", "-X", strategy, "side")
    by = {"ours": 1.0, "theirs": 2.0, "base": 0.0}
    want = (
        {MODEL: combined(tracked, tmp_path / "combined", ("layer.1.weight", by[strategy]))}
        if strategy in by
        else {}
    )
    assert_agreement(tracked, want)
    assert tracked.git("rev-list", "--count", "--merges", "HEAD") == "1"
    assert git_status(tracked) == []


def test_merge_in_conflict_then_abort_and_continue(tracked: Repo) -> None:
    ours, theirs = diverged(tracked, "layer.1.weight", "layer.1.weight")
    assert tracked.theta("merge", "side", code=None).returncode == 1
    assert digest(tracked) == ours
    assert not (tracked.path / ".theta").exists()
    tracked.theta("merge", "--abort")
    assert_agreement(tracked, {MODEL: ours})
    assert git_status(tracked) == []
    tracked.theta("merge", "side", code=None)
    tracked.theta("restore", "--theirs", MODEL)
    tracked.theta("add", MODEL)
    tracked.theta("merge", "--continue")
    assert_agreement(tracked, {MODEL: theirs})


def test_merge_without_commit(tracked: Repo) -> None:
    diverged(tracked, "layer.1.weight", "layer.2.weight")
    tracked.theta("merge", "--no-commit", "side")
    assert_agreement(tracked)
    tracked.git("commit", "-q", "--no-edit")
    assert_agreement(tracked)
    assert tracked.git("rev-list", "--count", "--merges", "HEAD") == "1"


def test_commands_that_are_handed_to_git(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    for command in ("stash", "stash pop", "gc --prune=now -q", "clean -fdq", "fsck", "commit-graph write"):
        tracked.theta(*command.split(), code=None)
    assert_agreement(tracked, {MODEL: new})
