"""Plain ``git add`` and ``git commit`` in all their forms."""

from __future__ import annotations

import pytest

from tests.compat.agreement import (
    assert_agreement,
    assert_commit,
    assert_history,
    assert_worktree,
    git_status,
    theta_status,
)
from tests.compat.story import MODEL, NO_HOOKS, commit, digest, edit, new_model
from tests.support import Repo
from theta.errors import ExitCode


def test_add_then_commit(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.git("add", MODEL)
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f"M  {MODEL}"]
    tracked.git("commit", "-q", "-m", "edit")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == []


def test_commit_all(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.write("code.py", "print('changed')\n")
    tracked.git("commit", "-q", "-am", "edit")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == []


def test_add_twice_then_commit_the_second(tracked: Repo) -> None:
    edit(tracked, "layer.1.weight")
    tracked.git("add", MODEL)
    new = edit(tracked, "layer.0.weight")
    tracked.git("add", MODEL)
    tracked.git("commit", "-q", "-m", "edit")
    assert_agreement(tracked, {MODEL: new})


def test_add_then_change_again_then_commit(tracked: Repo) -> None:
    staged = edit(tracked, "layer.1.weight")
    tracked.git("add", MODEL)
    new = edit(tracked, "layer.0.weight")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f"MM {MODEL}"]
    tracked.git("commit", "-q", "-m", "edit")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f" M {MODEL}"]
    tracked.git("checkout", "-q", MODEL)
    assert_agreement(tracked, {MODEL: staged})


def test_add_then_put_back_then_commit(tracked: Repo) -> None:
    old = digest(tracked)
    edit(tracked, "layer.1.weight")
    tracked.git("add", MODEL)
    tracked.git("restore", "--staged", "--worktree", MODEL)
    assert_agreement(tracked, {MODEL: old})
    tracked.write("code.py", "print('changed')\n")
    tracked.git("commit", "-q", "-am", "code")
    assert_agreement(tracked, {MODEL: old})


def test_commit_of_one_path(tracked: Repo) -> None:
    new_model(tracked, "other.safetensors", 5)
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "two models")
    new = edit(tracked, "layer.1.weight")
    other = edit(tracked, "layer.1.weight", path="other.safetensors")
    tracked.git("commit", "-q", "-m", "one of them", MODEL)
    assert_agreement(tracked, {MODEL: new, "other.safetensors": other})
    assert git_status(tracked) == [" M other.safetensors"]


def test_two_changed_checkpoints_in_one_add(tracked: Repo) -> None:
    new_model(tracked, "other.safetensors", 5)
    tracked.git("add", ".")
    new = edit(tracked, "layer.1.weight")
    other = edit(tracked, "layer.1.weight", path="other.safetensors")
    tracked.git("add", ".")
    assert_agreement(tracked, {MODEL: new, "other.safetensors": other})
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("commit", "-q", "-m", "two models")
    assert_agreement(tracked, {MODEL: new, "other.safetensors": other})


def test_commit_of_one_path_while_another_is_staged(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.git("add", MODEL)
    tracked.write("code.py", "print('changed')\n")
    tracked.git("commit", "-q", "-m", "code", "code.py")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f"M  {MODEL}"]
    tracked.git("commit", "-q", "-m", "model")
    assert_agreement(tracked, {MODEL: new})


def test_commit_include(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.git("commit", "-q", "-i", "-m", "edit", MODEL)
    assert_agreement(tracked, {MODEL: new})


def test_amend(tracked: Repo) -> None:
    commit(tracked, "layer.1.weight")
    new = edit(tracked, "layer.0.weight")
    tracked.git("commit", "-q", "--amend", "-a", "-m", "both")
    assert_agreement(tracked, {MODEL: new})
    assert tracked.git("rev-list", "--count", "HEAD") == "3"


def test_add_patch_on_code(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.write("code.py", "print('changed')\n")
    tracked.git("add", "-p", "code.py", stdin="y\n")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f" M {MODEL}", "M  code.py"]
    tracked.git("commit", "-q", "-m", "code")
    assert_agreement(tracked, {MODEL: new})


def test_add_patch_on_a_checkpoint_takes_one_tensor(tracked: Repo) -> None:
    edit(tracked, "head.weight")
    one = digest(tracked)
    both = edit(tracked, "embed.weight")
    tracked.git("add", "-p", MODEL, stdin="s\nn\ny\n")
    assert_agreement(tracked, {MODEL: both})
    assert git_status(tracked) == [f"MM {MODEL}"]
    tracked.git("commit", "-q", "-m", "head only")
    assert_agreement(tracked, {MODEL: both})
    tracked.git("checkout", "-q", MODEL)
    assert_agreement(tracked, {MODEL: one})


@pytest.mark.parametrize("flags", [("commit", "--no-verify"), (*NO_HOOKS, "commit")])
def test_a_commit_without_hooks_is_noticed_and_mended(tracked: Repo, flags: tuple[str, ...]) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.git(*flags, "-q", "-a", "-m", "no hooks")
    if flags[0] != "commit":
        assert "mend" in tracked.theta("status").stdout
        tracked.theta("fsck", "--mend")
    assert_agreement(tracked, {MODEL: new})
    assert_history(tracked)
    assert git_status(tracked) == []


def test_the_next_commit_mends_the_index_after_one_without_hooks(tracked: Repo) -> None:
    edit(tracked, "layer.1.weight")
    tracked.git(*NO_HOOKS, "commit", "-q", "-a", "-m", "no hooks")
    new = edit(tracked, "layer.0.weight")
    tracked.theta("commit", "-q", "-a", "-m", "with theta")
    assert_agreement(tracked, {MODEL: new})


def test_amend_of_a_commit_without_hooks(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.git(*NO_HOOKS, "commit", "-q", "-a", "-m", "no hooks")
    tracked.git("commit", "-q", "--amend", "-m", "with hooks")
    assert_agreement(tracked, {MODEL: new})


def test_gc_between_add_and_commit(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.git("add", MODEL)
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("commit", "-q", "-m", "edit")
    assert_agreement(tracked, {MODEL: new})
    tracked.git("gc", "-q", "--prune=now")
    (tracked.path / MODEL).unlink()
    tracked.theta("restore", MODEL)
    assert_agreement(tracked, {MODEL: new})


def test_gc_between_add_without_hooks_and_commit(tracked: Repo) -> None:
    new = edit(tracked, "layer.1.weight")
    tracked.git(*NO_HOOKS, "add", MODEL)
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("commit", "-q", "-m", "edit")
    (tracked.path / MODEL).unlink()
    tracked.git("checkout", "-q", MODEL)
    assert_agreement(tracked, {MODEL: new})


def test_raw_bytes_of_a_checkpoint_are_refused(tracked: Repo) -> None:
    edit(tracked, "layer.1.weight")
    raw = tracked.git("hash-object", "-w", "--no-filters", MODEL)
    tracked.git("update-index", "--cacheinfo", f"100644,{raw},{MODEL}")
    done = tracked.try_git("commit", "-m", "raw")
    assert done.returncode == 1
    assert f"theta add {MODEL}" in done.stderr
    tracked.theta("add", MODEL)
    tracked.git("commit", "-q", "-m", "not raw")
    assert_agreement(tracked)


def test_remove(tracked: Repo) -> None:
    tracked.git("rm", "-q", MODEL)
    assert theta_status(tracked) == git_status(tracked) == [f"D  {MODEL}"]
    tracked.git("commit", "-q", "-m", "gone")
    assert_agreement(tracked)
    assert tracked.git("ls-files", "--", ":/.theta") == ""


def test_a_commit_that_a_hook_stops_leaves_agreement(tracked: Repo) -> None:
    hook = tracked.write(".git/hooks/commit-msg", "#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    new = edit(tracked, "layer.1.weight")
    assert tracked.try_git("commit", "-am", "stopped").returncode == 1
    assert_commit(tracked, "HEAD")
    assert_worktree(tracked, {MODEL: new})
    assert theta_status(tracked) == git_status(tracked)
    tracked.git("restore", "--staged", MODEL)
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f" M {MODEL}"]


PEOPLE = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL")


@pytest.mark.parametrize("name", ["GIT_COMMITTER_DATE", "GIT_AUTHOR_DATE"])
def test_a_date_that_git_cannot_read_is_told_by_git(tracked: Repo, name: str) -> None:
    edit(tracked, "head.weight")
    asked, before = ("commit", "-a", "-m", "x"), tracked.git("rev-parse", "HEAD")
    plain = tracked.try_git("-c", "core.hooksPath=/dev/null", *asked, env={name: "@-5"})
    done = tracked.theta(*asked, env={name: "@-5"}, code=None)
    assert "invalid date format: @-5" in plain.stderr
    assert "invalid date format: @-5" in done.stderr
    assert "who you are" not in done.stderr
    assert done.returncode == plain.returncode == 128
    assert tracked.git("rev-parse", "HEAD") == before


@pytest.mark.parametrize("date", [{}, {"GIT_COMMITTER_DATE": "@-5"}])
def test_a_user_without_a_name_is_told_what_git_lacks(tracked: Repo, date: dict[str, str]) -> None:
    edit(tracked, "head.weight")
    for key in ("name", "email"):
        tracked.git("config", f"user.{key}", "")
    nobody = dict.fromkeys(PEOPLE, "")
    done = tracked.theta("commit", "-a", "-m", "x", env=nobody | date, code=int(ExitCode.NO_IDENTITY))
    assert "error: git does not know who you are: empty ident name" in done.stderr
    assert "hint: git config --global user.name" in done.stderr
