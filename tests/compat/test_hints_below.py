"""A hint names a command for the folder where the user is."""

from __future__ import annotations

import shlex

import pytest

from tests.compat.story import TENSOR, digest, edit, new_model
from tests.support import Repo
from tests.support.repos import Done
from theta.git.repository import Repository
from theta.porcelain.workspace.session import Session

HERE = "of a run"
MODEL = f"{HERE}/model.safetensors"


@pytest.fixture
def below(tracked: Repo) -> Repo:
    """A checkpoint in a folder whose name has a blank."""
    (tracked.path / HERE).mkdir()
    new_model(tracked, MODEL)
    tracked.theta("add", MODEL)
    tracked.theta("commit", "-m", "below")
    return tracked


def run(repo: Repo, *words: str, code: int | None = 0) -> Done:
    """Run ``theta WORDS`` in the folder."""
    return repo.theta("-C", HERE, *words, code=code)


def test_a_file_that_was_cut_short(below: Repo) -> None:
    whole = digest(below, MODEL)
    data = (below.path / MODEL).read_bytes()
    (below.path / MODEL).write_bytes(data[:-9])
    hint = run(below, "add", "model.safetensors", code=3).stderr
    assert "'theta restore model.safetensors'" in hint
    assert "'theta add --force model.safetensors'" in hint
    run(below, "restore", "model.safetensors")
    assert digest(below, MODEL) == whole


def test_a_manifest_in_place_of_the_file(below: Repo) -> None:
    (below.path / MODEL).write_text(below.git("show", f"HEAD:{MODEL}") + "\n")
    assert "theta restore model.safetensors" in run(below, "add", "model.safetensors", code=23).stderr
    assert "'theta restore model.safetensors' writes the checkpoint" in run(below, "status").stdout
    assert f'theta restore "{HERE}/model.safetensors"' in below.theta("add", MODEL, code=23).stderr


def test_plain_bytes(below: Repo) -> None:
    new_model(below, f"{HERE}/other.safetensors", 3)
    below.git("rm", "-q", "--cached", MODEL)
    oid = below.git("hash-object", "-w", "--no-filters", MODEL)
    below.git("update-index", "--add", "--cacheinfo", f"100644,{oid},{MODEL}")
    for line in ("status", "fsck"):
        assert "to mend: theta add model.safetensors && theta commit" in run(below, line).stdout
    told = run(below, "track", "*.safetensors").stdout
    assert "'theta add model.safetensors' makes it a checkpoint" in told
    run(below, "add", "model.safetensors")
    assert "plain bytes" not in run(below, "status").stdout


def test_a_conflict(below: Repo) -> None:
    contested(below)
    assert below.try_git("merge", "side").returncode == 1
    assert "'theta restore --ours model.safetensors'" in run(below, "add", "model.safetensors", code=1).stderr
    run(below, "restore", "--ours", "model.safetensors")
    edit(below, "head.weight", 0.5, MODEL)
    hint = run(below, "resolve", "-X", "ours", code=14).stderr
    assert "'theta add model.safetensors' takes it as the result" in hint
    run(below, "add", "model.safetensors")


def test_of_hooks_and_filter_of_plain_git(below: Repo) -> None:
    """Git runs them at the top of the worktree."""
    new_model(below, f"{HERE}/other.safetensors", 3)
    edit(below, TENSOR, path=MODEL)
    left = below.try_git("-C", HERE, "commit", "-qam", "one is left out").stderr
    assert "to stage: theta add other.safetensors" in left
    blob = below.git("hash-object", "-w", "--no-filters", f"{HERE}/other.safetensors")
    below.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{HERE}/other.safetensors")
    refused = below.try_git("-C", HERE, "commit", "-qm", "raw").stderr
    assert "theta add other.safetensors" in refused
    below.git("reset", "-q")
    new_model(below, f"{HERE}/weights.bin", 4)
    below.git("add", f"{HERE}/weights.bin")
    told = below.try_git("-C", HERE, "commit", "-qm", "not covered").stderr
    assert "theta track" in told and HERE not in told.partition("theta track")[2], told


def contested(repo: Repo, path: str = MODEL) -> None:
    """Change one tensor on two branches."""
    repo.git("checkout", "-q", "-b", "side")
    edit(repo, "head.weight", 2.0, path)
    repo.git("commit", "-q", "-a", "-m", "side")
    repo.git("checkout", "-q", "main")
    edit(repo, "head.weight", 1.0, path)
    repo.git("commit", "-q", "-a", "-m", "ours")


def test_what_status_lists(below: Repo) -> None:
    """Each path of it is one that a command takes in the same folder, as those of git are."""
    edit(below, TENSOR, path=MODEL)
    (below.path / "beside").mkdir()
    below.write("beside/a.txt", "a\n")
    text = run(below, "status").stdout
    assert "modified:   model.safetensors  (" in text and "\t../beside/\n" in text, text
    assert f"modified:   {MODEL}  (" in below.theta("status").stdout
    assert f"modified:   {MODEL}  (" in run(below, "-c", "status.relativePaths=false", "status").stdout
    run(below, "restore", "model.safetensors")
    below.theta("mv", MODEL, "beside/moved.safetensors")
    moved = run(below, "status").stdout
    assert "renamed:    model.safetensors -> ../beside/moved.safetensors" in moved, moved
    assert '"path": "beside/moved.safetensors"' in run(below, "status", "--json").stdout


def test_the_headings_of_conflicts(below: Repo) -> None:
    contested(below)
    for line in (("merge", "side"), ("diff",), ("resolve",), ("rebase", "side")):
        if line[0] == "rebase":
            below.theta("merge", "--abort")
        told = run(below, *line, code=None).stdout
        assert "model.safetensors: 1 in conflict" in told and f"{HERE}/model" not in told, (line, told)
    assert "both modified:   model.safetensors  (1 in conflict)" in run(below, "status").stdout
    run(below, "restore", "--ours", "model.safetensors")
    below.theta("rebase", "--abort")
    rehearsed = run(below, "merge", "--dry-run", "side", code=1).stdout
    assert "CONFLICT: model.safetensors" in rehearsed.splitlines()
    assert HERE not in rehearsed
    merged = run(below, "merge", "-X", "average", "side").stdout
    assert merged.startswith("model.safetensors: merged"), merged


@pytest.mark.parametrize("words", [("-m", "x"), ("--interactive",), ("--json", "-m", "x")])
def test_a_commit_in_a_conflict_tells_the_way_of_theta(below: Repo, words: tuple[str, ...]) -> None:
    contested(below)
    run(below, "merge", "side", code=1)
    told = run(below, "commit", *words, code=None)
    way = "hint: 'theta resolve' settles the checkpoints in conflict; then 'theta merge --continue'"
    assert told.returncode and way in told.stderr, told
    run(below, "resolve", "-X", "ours")
    run(below, "merge", "--continue")


def test_errors_that_name_a_command(below: Repo) -> None:
    """The path that an error is about is spelled as that of the command in its hint."""
    contested(below)
    run(below, "merge", "side", code=1)
    refused = run(below, "restore", "--worktree", "model.safetensors", code=None).stderr
    refused += run(below, "add", "model.safetensors", code=1).stderr
    assert f"{HERE}/model" not in refused and refused.count("error: model.safetensors is in conflict") == 2


def test_a_word_of_a_hint_is_quoted_as_a_shell_reads_it(below: Repo) -> None:
    """In double quotes where they do, since commands in hints have single ones."""
    session = Session(Repository.discover(below.path))
    words = {"a": "a", "a b": '"a b"', "a'b": '"a\'b"', "a$b c": "'a$b c'", 'a"b': "'a\"b'"}
    for name, word in words.items():
        assert session.word(name) == word
        assert shlex.split(word) == [name]
