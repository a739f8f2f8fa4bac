"""A checkpoint that a git without theta committed as it is: told as that, and mended by what is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.story import MODEL, commit, digest, edit, new_model, run_either
from tests.support import Repo

NOW = "stored as plain bytes now, not as a checkpoint"
TO_MEND = f"{MODEL} is stored as plain bytes, not as a checkpoint; to mend: theta add {MODEL} && theta commit"
OTHER = "other.safetensors"


@pytest.fixture
def elsewhere(tracked: Repo, tmp_path: Path) -> Repo:
    """A clone, of a bare remote of ``tracked``, by a git that has no filter of theta's."""
    tracked.git("init", "-q", "--bare", "-b", "main", str(tmp_path / "remote"))
    tracked.git("remote", "add", "origin", str(tmp_path / "remote"))
    tracked.git("push", "-q", "-u", "origin", "main")
    tracked.git("clone", "-q", str(tmp_path / "remote"), str(tmp_path / "elsewhere"))
    return Repo(tmp_path / "elsewhere")


def push(clone: Repo) -> None:
    """Commit and push all as it is."""
    clone.git("add", "-A")
    clone.git("commit", "-q", "-m", "without theta")
    clone.git("push", "-q")


def replace_model(clone: Repo) -> str:
    """Push a new model as plain bytes; return its sha256."""
    new = new_model(clone, seed=7)
    push(clone)
    return new


@pytest.mark.parametrize("program", ["theta", "git"])
def test_it_is_told_and_nothing_is_deleted(tracked: Repo, elsewhere: Repo, program: str) -> None:
    new = replace_model(elsewhere)
    pulled = run_either(tracked, program, "pull")
    assert pulled.returncode == 0, pulled.stderr
    assert digest(tracked) == new
    told = [
        tracked.theta(*line).stdout
        for line in (("status",), ("show", "HEAD"), ("diff", "HEAD~", "HEAD"), ("log", "-1", "--stat"))
    ]
    assert TO_MEND in told[0]
    assert all(f"{MODEL}: {NOW}" in text for text in told[1:3])
    assert not [text for text in (*told, pulled.stdout, pulled.stderr) if "delete" in text or "agree" in text]
    assert program == "git" or f"{MODEL}: {NOW}" in pulled.stdout


@pytest.mark.parametrize("line", [("switch",), ("merge", "--no-edit"), ("cherry-pick",)])
def test_a_git_that_stops_at_it_is_told_why(tracked: Repo, elsewhere: Repo, line: tuple[str, ...]) -> None:
    tracked.git("switch", "-q", "-c", "before")
    commit(tracked, "head.weight")
    tracked.git("switch", "-q", "main")
    replace_model(elsewhere)
    tracked.theta("pull", "-q")
    assert f"hint: {TO_MEND}" in tracked.theta(*line, "before", code=None).stderr


def test_fsck_names_the_commands_that_mend_it(tracked: Repo, elsewhere: Repo) -> None:
    new = replace_model(elsewhere)
    tracked.theta("pull", "-q")
    published = tracked.git("rev-parse", "HEAD")
    for line in (("fsck",), ("fsck", "--mend")):
        assert TO_MEND in tracked.theta(*line).stdout
        assert tracked.git("rev-parse", "HEAD") == published
    assert json.loads(tracked.theta("fsck", "--json").stdout)["theta.fsck/v1"]["plain"] == [MODEL]
    tracked.theta("add", MODEL)
    tracked.theta("commit", "-m", "a checkpoint again")
    tracked.theta("push", "-q")
    assert "plain bytes" not in tracked.theta("fsck").stdout + tracked.theta("status").stdout
    assert_agreement(tracked, {MODEL: new})


def test_several_are_mended_by_the_command_that_is_named(tracked: Repo, elsewhere: Repo) -> None:
    other = new_model(elsewhere, OTHER, seed=8)
    new = replace_model(elsewhere)
    tracked.theta("pull", "-q")
    said = f"{MODEL}, {OTHER} are stored as plain bytes, not as checkpoints"
    assert f"{said}; to mend: theta add -u && theta commit" in tracked.theta("status").stdout
    tracked.theta("add", "-u")
    tracked.theta("commit", "-m", "checkpoints again")
    assert_agreement(tracked, {MODEL: new, OTHER: other})


def test_programs_are_told(tracked: Repo, elsewhere: Repo) -> None:
    replace_model(elsewhere)
    tracked.theta("pull", "-q")
    (row,) = json.loads(tracked.theta("log", "-1", "--json").stdout)["theta.log/v1"]
    assert row["plain"] == [MODEL]
    assert row["checkpoints"] == {MODEL: []}


def test_staged_plain_bytes_are_told_in_a_diff(tracked: Repo, elsewhere: Repo) -> None:
    replace_model(elsewhere)
    tracked.theta("pull", "-q")
    assert f"{MODEL}: {NOW}" in tracked.theta("diff", "--cached", "HEAD~").stdout


def test_one_shard_of_a_model_is_told_as_that_file(tracked: Repo, elsewhere: Repo) -> None:
    shards = [f"big-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for n, shard in enumerate(shards):
        new_model(tracked, shard, seed=n)
        edit(tracked, "head.weight", path=shard)
    tracked.theta("add", *shards)
    tracked.theta("commit", "-m", "shards")
    tracked.theta("push", "-q")
    elsewhere.git("pull", "-q")
    new_model(elsewhere, shards[1], seed=9)
    push(elsewhere)
    tracked.theta("pull", "-q")
    told = tracked.theta("diff", "HEAD~", "HEAD").stdout
    assert f"{shards[1]}: {NOW}" in told
    assert "delete" not in told


def test_a_checkpoint_that_a_git_without_theta_deletes_leaves_nothing_to_mend(
    tracked: Repo, elsewhere: Repo
) -> None:
    elsewhere.git("rm", "-q", MODEL)
    push(elsewhere)
    done = tracked.theta("pull")
    published = tracked.git("rev-parse", "HEAD")
    assert published == tracked.git("rev-parse", "origin/main")
    assert "agree" not in done.stderr
    assert "HEAD lacks" not in tracked.theta("status").stdout
    tracked.theta("fsck", "--mend")
    assert tracked.git("rev-parse", "HEAD") == published
    new_model(tracked)
    tracked.theta("commit", "-a", "-m", "back")
    tracked.theta("push", "-q")
    assert_agreement(tracked, {MODEL: digest(tracked)})
