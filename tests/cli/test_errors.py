"""Mistakes and accidents: one clear line each, and the exit code that stands for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.checks import never_a_bug, refused
from tests.support import Repo, make_model, mutate, random_tensors, sha256
from theta.errors import ExitCode

COMMANDS = [
    ["status"],
    ["add", "m.safetensors"],
    ["commit", "-m", "x"],
    ["restore", "m.safetensors"],
    ["track", "*.x"],
    ["diff"],
    ["merge", "x"],
    ["switch", "x"],
    ["reset"],
    ["install"],
    ["untrack", "*.x"],
    ["ls-files"],
]
READING = [["log"], ["show"], ["fsck"], ["branch"], ["tag"], ["push"]]


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    """A repository with one committed checkpoint of two tensors."""
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "m.safetensors", random_tensors({"a": (40, 50), "b": (3,)}))
    repo.theta("add", "m.safetensors")
    repo.theta("commit", "-m", "one")
    return repo


def empty(place: Path, *options: str) -> Repo:
    """A repository without a commit."""
    subprocess.run(["git", "init", "--quiet", *options, str(place)], check=True)
    return Repo(place)


def ready(place: Path) -> Repo:
    """A repository without a commit in which a pattern is tracked."""
    repo = empty(place)
    repo.theta("track", "*.safetensors")
    return repo


@pytest.mark.parametrize("args", COMMANDS + READING, ids=" ".join)
def test_not_a_repository(tmp_path: Path, args: list[str]) -> None:
    refused(Repo(tmp_path).theta(*args, code=None), ExitCode.NOT_A_REPOSITORY, "not a git repository")


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_bare_repository_has_no_files(tracked: Repo, tmp_path: Path, args: list[str]) -> None:
    bare = tracked.clone(tmp_path / "bare.git", "--bare")
    refused(bare.theta(*args, code=None), ExitCode.NO_WORKTREE, "bare")


def test_a_bare_repository_can_be_read(tracked: Repo, tmp_path: Path) -> None:
    bare = tracked.clone(tmp_path / "bare.git", "--bare")
    for args in (["log", "--oneline"], ["show", "HEAD:m.safetensors"], ["fsck"], ["branch"]):
        done = bare.theta(*args)
        assert (done.stdout != "", done.stderr) == (True, ""), args


@pytest.mark.parametrize("args", [["status"], ["track", "*.x"], ["log"]], ids=" ".join)
@pytest.mark.parametrize("extension", ["refStorage", "strange"])
def test_repositories_that_need_more_are_refused(tmp_path: Path, args: list[str], extension: str) -> None:
    repo = ready(tmp_path / "repo")
    with (repo.path / ".git" / "config").open("a") as config:
        config.write(f"[core]\n\trepositoryformatversion = 1\n[extensions]\n\t{extension} = reftable\n")
    code, word = ExitCode.UNSUPPORTED_REPOSITORY, {"refStorage": "reftable"}.get(extension, extension)
    if extension == "refStorage" and "--ref-format" in repo.try_git("init", "-h").stdout:
        code, word = ExitCode.DAMAGED_REPOSITORY, "HEAD"  # git reads tables from 2.45 on, and there is none
    refused(repo.theta(*args, code=None), code, word)


def test_nothing_is_tracked(repo: Repo) -> None:
    make_model(repo.path / "m.safetensors", random_tensors({"a": (4,)}))
    assert repo.theta("ls-files").stdout == ""
    assert repo.theta("track").stdout == ""
    config = repo.git("config", "--local", "--list")
    for _ in range(2):
        assert "m.safetensors" in repo.theta("status").stdout
    assert repo.git("config", "--local", "--list") == config, "a repository without checkpoints is left alone"
    hooks = repo.path / ".git" / "hooks"
    assert [hook.name for hook in hooks.iterdir() if hook.suffix != ".sample"] == []
    refused(repo.theta("untrack", "*.safetensors", code=None), ExitCode.NOT_FOUND, "*.safetensors")


def test_an_empty_commit(tracked: Repo) -> None:
    head = tracked.git("rev-parse", "HEAD")
    done = tracked.theta("commit", "-m", "nothing", code=int(ExitCode.DIFFERENCES))
    assert "nothing to commit" in done.stdout
    never_a_bug(done)
    assert tracked.git("rev-parse", "HEAD") == head
    tracked.theta("commit", "--allow-empty", "-m", "on purpose")
    assert tracked.git("rev-parse", "HEAD^") == head


NOBODY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "user.useConfigOnly",
    "GIT_CONFIG_VALUE_0": "true",
}
"""Variables with which git does not know who commits."""


def test_a_missing_identity(tracked: Repo) -> None:
    head = tracked.git("rev-parse", "HEAD")
    tracked.write("code.py", "pass\n")
    done = tracked.theta("commit", "-a", "-m", "who", code=None, env=NOBODY)
    refused(done, ExitCode.NO_IDENTITY, "who you are")
    assert "git config" in done.stderr
    assert tracked.git("rev-parse", "HEAD") == head
    tracked.theta("commit", "-a", "-m", "me")


def test_a_merge_with_a_missing_identity_is_concluded_later(tracked: Repo) -> None:
    tracked.theta("switch", "-c", "side")
    for branch, name in (("side", "a"), ("main", "b")):
        tracked.theta("switch", branch)
        mutate(tracked.path / "m.safetensors", name, lambda old: old + np.float32(1))
        tracked.theta("commit", "-am", branch)
    head = tracked.git("rev-parse", "HEAD")
    refused(tracked.theta("merge", "side", code=None, env=NOBODY), ExitCode.NO_IDENTITY, "who you are")
    assert tracked.git("rev-parse", "HEAD") == head
    done = tracked.theta("merge", "--continue" if (tracked.path / ".git/MERGE_HEAD").exists() else "side")
    never_a_bug(done)
    assert tracked.git("rev-parse", "HEAD^2") == tracked.git("rev-parse", "side")


def test_a_detached_head(tracked: Repo) -> None:
    tracked.theta("checkout", "--detach")
    assert "detached" in tracked.theta("status").stdout
    make_model(tracked.path / "m.safetensors", random_tensors({"a": (40, 50), "b": (3,)}, seed=1))
    assert "detached" in tracked.theta("commit", "-a", "-m", "two").stdout
    wanted = sha256(tracked.path / "m.safetensors")
    (tracked.path / "m.safetensors").unlink()
    tracked.theta("restore", "m.safetensors")
    assert sha256(tracked.path / "m.safetensors") == wanted
    tracked.theta("switch", "main")
    assert sha256(tracked.path / "m.safetensors") != wanted


@pytest.mark.parametrize(
    "args", [["status"], ["ls-files"], ["diff"], ["branch"], ["tag"], ["fsck"], ["reset"]], ids=" ".join
)
def test_an_unborn_branch_is_nothing_special(tmp_path: Path, args: list[str]) -> None:
    repo = empty(tmp_path / "repo")
    never_a_bug(repo.theta(*args))


@pytest.mark.parametrize("args", [["log"], ["show"], ["merge", "x"], ["diff", "HEAD"]], ids=" ".join)
def test_an_unborn_branch_has_no_history(tmp_path: Path, args: list[str]) -> None:
    refused(ready(tmp_path / "repo").theta(*args, code=None), ExitCode.NOT_FOUND)


def test_the_first_commit_may_hold_a_checkpoint(tmp_path: Path) -> None:
    repo = empty(tmp_path / "repo")
    path = make_model(repo.path / "m.safetensors", random_tensors({"a": (4,)}))
    wanted = sha256(path)
    repo.theta("track", "*.safetensors")
    repo.theta("add", "m.safetensors")
    repo.theta("restore", "--staged", "m.safetensors")
    repo.theta("add", "m.safetensors")
    assert "root-commit" in repo.theta("commit", "-m", "first").stdout
    path.unlink()
    repo.theta("restore", "m.safetensors")
    assert sha256(path) == wanted
    repo.fsck()


def test_a_changed_checkpoint_is_not_overwritten(tracked: Repo) -> None:
    tracked.git("branch", "other")
    path = tracked.path / "m.safetensors"
    make_model(path, random_tensors({"a": (40, 50), "b": (3,)}, seed=1))
    tracked.theta("commit", "-a", "-m", "two")
    make_model(path, random_tensors({"a": (40, 50), "b": (3,)}, seed=2))
    wanted = sha256(path)
    for args in (
        ["switch", "other"],
        ["checkout", "other"],
        ["merge", "other~0"],
        ["reset", "--keep", "other"],
    ):
        done = tracked.theta(*args, code=None)
        never_a_bug(done)
        assert sha256(path) == wanted, args


def test_a_locked_index_is_waited_for_and_then_named(tracked: Repo) -> None:
    lock = tracked.path / ".git" / "index.lock"
    make_model(tracked.path / "m.safetensors", random_tensors({"a": (40, 50), "b": (3,)}, seed=1))
    lock.touch()
    refused(tracked.theta("add", "m.safetensors", code=None), ExitCode.BUSY, "lock")
    assert lock.exists(), "a lock of somebody else is not removed"
    lock.unlink()
    tracked.theta("add", "m.safetensors")


def test_the_interpreter_is_the_one_under_test() -> None:
    done = subprocess.run([sys.executable, "-m", "theta", "--version"], capture_output=True, check=True)
    assert done.stdout
