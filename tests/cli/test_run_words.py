"""Steps of training runs on the command line: ``RUN@STEP``, bare repositories, runs that nothing tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theta
from tests.support import Repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository with a run alone: no commit, nothing tracked."""
    found = Repo.create(tmp_path / "models")
    with theta.open(found.path) as opened, theta.Run(opened, "r1") as run:
        for step in (10, 20, 30):
            weights: dict[str, Any] = {"w": np.full((8, 4), step, np.float32), "same": np.arange(5)}
            run.save(step, {"m.safetensors": weights}, {"loss": 1 / step}).result()
    return found


@pytest.mark.parametrize("words", [("r1@10", "r1@20"), ("r1@10..r1@20",), ("refs/theta/runs/r1~2", "r1@20")])
def test_two_steps_are_compared_by_tensor(repo: Repo, words: tuple[str, ...]) -> None:
    said = repo.theta("diff", *words).stdout
    assert said.startswith("m.safetensors: 1 changed of 2 tensors")
    assert ".theta" not in said


def test_a_step_is_a_revision_of_other_commands(repo: Repo) -> None:
    assert "m.safetensors: new, 2 tensors" in repo.theta("show", "r1@10").stdout
    assert repo.theta("log", "--format=%s", "r1@20").stdout.split("\n")[:2] == ["step 20", "step 10"]
    assert "1 changed of 2 tensors" in repo.theta("diff", "--stats", "r1@20", "r1@30").stdout
    repo.theta("restore", "--source=r1@20", "m.safetensors")
    assert (repo.path / "m.safetensors").is_file()
    assert "2" in repo.theta("cat", "--json", "r1@20:m.safetensors#same").stdout


def test_a_step_that_is_not_there_is_told(repo: Repo) -> None:
    failed = repo.theta("diff", "r1@10", "r1@11", code=13)
    assert failed.stderr == "error: run r1 has no step 11\nhint: 'theta runs r1' lists them\n"


def test_what_git_or_a_file_is_called_stays(repo: Repo) -> None:
    repo.git("commit", "--quiet", "--allow-empty", "-m", "first")
    repo.git("branch", "r1@20")
    assert repo.theta("log", "--format=%s", "r1@20").stdout.startswith("first\n")
    repo.theta("checkout", "--quiet", "r1@20")
    assert repo.git("symbolic-ref", "HEAD") == "refs/heads/r1@20"
    repo.theta("switch", "--quiet", "main")
    repo.git("branch", "-D", "r1@20")
    for words in (("switch", "-c"), ("checkout", "-b"), ("switch", "--create")):
        repo.theta(*words, "r1@20", "r1@10", "--quiet")
        assert repo.git("symbolic-ref", "HEAD") == "refs/heads/r1@20"
        assert repo.git("log", "-1", "--format=%s") == "step 10"
        repo.theta("switch", "--quiet", "main")
        repo.git("branch", "-D", "r1@20")
    (repo.path / "r1@20").write_text("a file\n")
    assert repo.theta("diff", "--", "r1@20").stdout == ""
    repo.git("commit", "--quiet", "--allow-empty", "-m", "as of r1@30")
    for grep in (("--grep", "r1@30"), ("--grep=r1@30",)):
        assert repo.theta("log", "--format=%s", *grep).stdout == "as of r1@30\n"
    assert repo.theta("log", "--format=%s", "r1@30", "^r1@10").stdout == "step 30\nstep 20\n"
    repo.theta("diff", "r9@20", code=13)


@pytest.mark.parametrize("packed", [False, True])
def test_a_bare_repository_compares_revisions_that_are_files_of_git_too(
    repo: Repo, tmp_path: Path, packed: bool
) -> None:
    bare = Repo(tmp_path / "bare.git")
    repo.git("init", "--quiet", "--bare", str(bare.path))
    repo.git("push", "--quiet", str(bare.path), "refs/theta/runs/r1")
    if packed:
        bare.git("pack-refs", "--all")
    want = "m.safetensors: 1 changed of 2 tensors"
    assert bare.theta("diff", "refs/theta/runs/r1~1", "refs/theta/runs/r1").stdout.startswith(want)
    bare.git("update-ref", "refs/heads/main", "refs/theta/runs/r1~1")
    bare.git("symbolic-ref", "HEAD", "refs/heads/main")
    for words in (("HEAD", "refs/theta/runs/r1"), ("HEAD", "theta/runs/r1"), ("r1@20", "r1@30")):
        assert bare.theta("diff", *words).stdout.startswith(want)


def test_a_clone_with_the_runs_of_its_remote_shows_them_by_tensor(repo: Repo, tmp_path: Path) -> None:
    clone = Repo(tmp_path / "clone")
    repo.git("clone", "--quiet", str(repo.path), str(clone.path))
    clone.git("fetch", "--quiet", "origin", "+refs/theta/runs/*:refs/theta/runs/*")
    assert clone.theta("diff", "r1@10", "r1@20").stdout.startswith("m.safetensors: 1 changed of 2 tensors")


def test_a_published_step_is_a_checkpoint_for_git_too(repo: Repo) -> None:
    """The file was there and the filter was not, so that a commit of git's made a plain blob of it."""
    repo.theta("runs", "publish", "r1", "release")
    repo.theta("switch", "--quiet", "release")
    assert repo.git("status", "--short") == ""
    assert repo.git("config", "filter.theta.required") == "true"
    repo.git("commit", "--quiet", "--allow-empty", "-am", "none")
    assert repo.git("cat-file", "blob", "HEAD:m.safetensors").startswith("theta checkpoint 1")
