"""Beside checkpoints that a command does not touch, git does what is asked and prints it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Repo, make_model, random_tensors, sha256

OFF = {"THETA_HOOKS": "off", "GIT_EDITOR": "true"}
LINES = """
merge other
merge --no-ff --no-commit other
merge --squash other third
merge -s octopus other third
merge -X ours --stat other
merge conflicting
cherry-pick other
cherry-pick -x --edit other third
cherry-pick -X patience -X ours conflicting
cherry-pick conflicting
revert --no-edit HEAD
revert -X ours HEAD
status
status -s
-c status.short=true status
status --porcelain=v2 --branch -z
""".strip().splitlines()


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with one checkpoint, the same in all branches, and files that differ."""
    repo = Repo.create(tmp_path_factory.mktemp("beside") / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "m.safetensors", random_tensors({"w": (4, 4)}))
    repo.write("a", "a\n")
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "base")
    for branch, name in (("other", "o"), ("third", "t"), ("conflicting", "a")):
        repo.git("switch", "-qc", branch, "main", env=OFF)
        repo.write(name, f"{branch}\n")
        repo.git("add", name, env=OFF)
        repo.git("commit", "-qm", f"on {branch}", env=OFF)
    repo.git("switch", "-q", "main", env=OFF)
    repo.write("a", "a\nhello\n")
    repo.git("commit", "-qam", "say hello", env=OFF)
    return repo


@pytest.mark.parametrize("line", LINES)
def test_output_and_result_are_gits(beside: Repo, tmp_path: Path, line: str) -> None:
    found = []
    for run in (Repo.try_git, lambda repo, *args, env: repo.theta(*args, code=None, env=env)):
        repo = beside.copy(tmp_path / "repo")
        repo.ticks = beside.ticks
        repo.write("new", "new\n")
        done = run(repo, "-c", "core.sparseCheckout=false", *line.split(), env=OFF)
        kept = repo.path / ".git" / "sequencer" / "opts"
        state = [
            repo.git("log", "-1", "--format=%P%n%B"),
            repo.git("diff", "HEAD", "--", "a", "o", "t", env=OFF),
        ]
        sequence = kept.read_text() if kept.exists() else ""
        found.append((done.returncode, done.stdout, done.stderr, state, sequence))
        assert sha256(repo.path / "m.safetensors") == sha256(beside.path / "m.safetensors")
        assert not (repo.path / ".theta").exists()
        repo.path.rename(tmp_path / f"done-{len(found)}")
    for by_theta, by_git in zip(found[1], found[0], strict=True):
        assert by_theta == by_git


def test_a_failure_without_a_conflict_has_no_hint_of_one(beside: Repo) -> None:
    """Each failing command of git said that 'theta resolve' settles checkpoints."""
    for words in (
        ["checkout", "nowhere"],
        ["rm", "nothing"],
        ["reset", "nowhere"],
        ["add", "--refresh", "x"],
    ):
        assert "resolve" not in beside.theta(*words, code=None).stderr


def test_a_changed_checkpoint_is_told_by_tensor(beside: Repo, tmp_path: Path) -> None:
    """The long form stays theta's where a checkpoint changed."""
    repo = beside.copy(tmp_path / "repo")
    make_model(repo.path / "m.safetensors", random_tensors({"w": (4, 4)}, seed=1))
    assert "m.safetensors  (1" in repo.theta("status").stdout
