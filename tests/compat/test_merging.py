"""Plain ``git merge`` in a repository with theta's filter and hooks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, assert_commit, assert_history, git_status, index_entries
from tests.compat.made import diverged
from tests.compat.story import MODEL, combined, commit, digest, edit, new_model
from tests.support import Repo, sha256


def test_fast_forward(tracked: Repo) -> None:
    tracked.git("checkout", "-q", "-b", "side")
    new = commit(tracked, "layer.1.weight")
    tracked.git("checkout", "-q", "main")
    tracked.git("merge", "--ff-only", "side")
    assert_agreement(tracked, {MODEL: new})


@pytest.mark.parametrize("flags", ["--no-edit", "--squash", "--no-commit"])
def test_different_tensors_merge_cleanly(tracked: Repo, tmp_path: Path, flags: str) -> None:
    diverged(tracked, "layer.1.weight", "layer.2.weight")
    want = combined(tracked, tmp_path / "combined", ("layer.1.weight", 1.0), ("layer.2.weight", 2.0))
    tracked.git("merge", *flags.split(), "side")
    if "squash" in flags or "no-commit" in flags:
        tracked.git("commit", "-q", "-m", "merged")
    assert_agreement(tracked, {MODEL: want})
    assert_history(tracked)
    assert git_status(tracked) == []


def test_large_files_merge_cleanly(tracked: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THETA_SMUDGE_LIMIT", "1000")
    diverged(tracked, "layer.1.weight", "layer.2.weight")
    want = combined(tracked, tmp_path / "combined", ("layer.1.weight", 1.0), ("layer.2.weight", 2.0))
    tracked.git("merge", "--no-edit", "side")
    assert_agreement(tracked, {MODEL: want})


def test_the_same_tensor_conflicts(tracked: Repo) -> None:
    ours, _ = diverged(tracked, "layer.1.weight", "layer.1.weight")
    done = tracked.try_git("merge", "side")
    assert done.returncode == 1
    assert f"CONFLICT (content): Merge conflict in {MODEL}" in done.stdout
    assert {entry.path for entry in index_entries(tracked) if entry.stage} == {MODEL}
    assert not (tracked.path / ".theta").exists()
    tracked.git("merge", "--abort")
    assert_agreement(tracked, {MODEL: ours})


@pytest.mark.parametrize("side", ["--ours", "--theirs"])
@pytest.mark.parametrize("program", ["checkout", "restore"])
def test_a_conflict_is_settled_by_a_side(tracked: Repo, program: str, side: str) -> None:
    ours, theirs = diverged(tracked, "layer.1.weight", "layer.1.weight")
    assert tracked.try_git("merge", "side").returncode == 1
    if program == "checkout":
        tracked.git("checkout", side, MODEL)
    else:
        tracked.theta("restore", side, MODEL)
    tracked.git("add", MODEL)
    tracked.git("commit", "-q", "--no-edit")
    assert_agreement(tracked, {MODEL: ours if side == "--ours" else theirs})
    assert git_status(tracked) == []
    assert tracked.git("rev-list", "--count", "--merges", "HEAD") == "1"


def test_a_conflict_is_settled_by_a_new_file(tracked: Repo) -> None:
    diverged(tracked, "layer.1.weight", "layer.1.weight")
    assert tracked.try_git("merge", "side").returncode == 1
    new = new_model(tracked, seed=77)
    tracked.git("add", MODEL)
    tracked.git("commit", "-q", "--no-edit")
    assert_agreement(tracked, {MODEL: new})


def test_a_conflict_left_in_the_file_cannot_be_added(tracked: Repo) -> None:
    diverged(tracked, "layer.1.weight", "layer.1.weight")
    tracked.try_git("merge", "side")
    if b"<<<<<<<" in (tracked.path / MODEL).read_bytes():
        assert tracked.try_git("add", MODEL).returncode != 0
    assert tracked.try_git("commit", "--no-edit").returncode != 0
    assert {entry.path for entry in index_entries(tracked) if entry.stage} == {MODEL}


@pytest.mark.parametrize("option", ["-Xours", "-Xtheirs", "-sours"])
def test_strategies_of_git(tracked: Repo, option: str) -> None:
    ours, theirs = diverged(tracked, "layer.1.weight", "layer.1.weight")
    tracked.git("merge", "--no-edit", option, "side")
    assert_agreement(tracked, {MODEL: theirs if option == "-Xtheirs" else ours})


def test_octopus(tracked: Repo, tmp_path: Path) -> None:
    for number in (0, 1, 2):
        tracked.git("checkout", "-q", "-b", f"b{number}", "main")
        commit(tracked, f"layer.{number}.weight", number + 1.0)
    tracked.git("checkout", "-q", "main")
    tracked.git("merge", "--no-edit", "b0", "b1", "b2")
    changes = [(f"layer.{number}.weight", number + 1.0) for number in (0, 1, 2)]
    assert_agreement(tracked, {MODEL: combined(tracked, tmp_path / "combined", *changes)})
    assert len(tracked.git("rev-parse", "HEAD^@").split()) in (3, 4)


def test_merge_with_code_in_conflict(tracked: Repo, tmp_path: Path) -> None:
    tracked.git("checkout", "-q", "-b", "side")
    tracked.write("code.py", "print('side')\n")
    commit(tracked, "layer.2.weight", 2.0)
    tracked.git("checkout", "-q", "main")
    tracked.write("code.py", "print('main')\n")
    commit(tracked, "layer.1.weight", 1.0)
    assert tracked.try_git("merge", "side").returncode == 1
    tracked.write("code.py", "print('both')\n")
    tracked.git("add", "code.py")
    tracked.git("commit", "-q", "--no-edit")
    want = combined(tracked, tmp_path / "combined", ("layer.1.weight", 1.0), ("layer.2.weight", 2.0))
    assert_agreement(tracked, {MODEL: want})


def test_rename_on_one_side_change_on_the_other(tracked: Repo) -> None:
    tracked.git("checkout", "-q", "-b", "side")
    tracked.git("mv", MODEL, "renamed.safetensors")
    tracked.git("commit", "-q", "-m", "rename")
    tracked.git("checkout", "-q", "main")
    new = commit(tracked, "layer.1.weight")
    tracked.git("merge", "--no-edit", "side")
    assert_agreement(tracked, {"renamed.safetensors": new})
    assert not (tracked.path / MODEL).exists()


def test_tied_tensors_and_a_rename(tracked: Repo) -> None:
    """Git's rename detection pairs equal files: what it makes of .theta/ must be put right."""
    for tensor in ("layer.1.weight", "layer.2.weight"):
        edit_to_zero(tracked, tensor)
    tracked.git("commit", "-q", "-am", "tied")
    tracked.git("checkout", "-q", "-b", "side")
    tracked.git("mv", MODEL, "renamed.safetensors")
    tracked.git("commit", "-q", "-m", "rename")
    tracked.git("checkout", "-q", "main")
    commit(tracked, "layer.1.weight", 1.0)
    new = commit(tracked, "layer.2.weight", 2.0)
    tracked.git("merge", "--no-edit", "side")
    assert_agreement(tracked, {"renamed.safetensors": new})


def edit_to_zero(repo: Repo, tensor: str) -> None:
    from tests.support import mutate

    mutate(repo.path / MODEL, tensor, lambda old: old * 0)


def test_delete_on_one_side_change_on_the_other(tracked: Repo) -> None:
    tracked.git("checkout", "-q", "-b", "side")
    tracked.git("rm", "-q", MODEL)
    tracked.git("commit", "-q", "-m", "gone")
    tracked.git("checkout", "-q", "main")
    new = commit(tracked, "layer.1.weight")
    assert tracked.try_git("merge", "side").returncode == 1
    tracked.git("add", MODEL)
    tracked.git("commit", "-q", "--no-edit")
    assert_agreement(tracked, {MODEL: new})


def test_both_sides_made_the_same_change(tracked: Repo) -> None:
    tracked.git("checkout", "-q", "-b", "side")
    new = commit(tracked, "layer.1.weight")
    tracked.git("checkout", "-q", "main")
    tracked.write("code.py", "print('main')\n")
    assert commit(tracked, "layer.1.weight") == new
    tracked.git("merge", "--no-edit", "side")
    assert_agreement(tracked, {MODEL: new})


def test_new_checkpoints_on_both_sides(tracked: Repo) -> None:
    tracked.git("checkout", "-q", "-b", "side")
    one = new_model(tracked, "one.safetensors", 1)
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "one")
    tracked.git("checkout", "-q", "main")
    two = new_model(tracked, "two.safetensors", 2)
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "two")
    old = digest(tracked)
    tracked.git("merge", "--no-edit", "side")
    assert_agreement(tracked, {"one.safetensors": one, "two.safetensors": two, MODEL: old})


def test_merge_tree_agrees(tracked: Repo) -> None:
    """The tree that a server's merge button would commit."""
    diverged(tracked, "layer.1.weight", "layer.2.weight")
    assert_commit(tracked, tracked.git("merge-tree", "--write-tree", "main", "side"))


def test_a_change_in_the_worktree_survives_a_merge_of_code(tracked: Repo) -> None:
    tracked.git("checkout", "-q", "-b", "side")
    tracked.write("code.py", "print('side')\n")
    tracked.git("commit", "-q", "-am", "code")
    tracked.git("checkout", "-q", "main")
    new = edit(tracked, "layer.1.weight")
    tracked.git("merge", "--no-edit", "side")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f" M {MODEL}"]


@pytest.mark.parametrize(
    "how", [("merge", "side"), ("merge", "--no-commit", "side"), ("cherry-pick", "side"), ("rebase", "side")]
)
@pytest.mark.parametrize("program", ["theta", "git"])
def test_a_checkpoint_that_comes_with_a_text_in_conflict_is_filled_in(
    tracked: Repo, program: str, how: tuple[str, ...]
) -> None:
    """It stayed a manifest until something restored it, and ``add -A`` refused it."""
    tracked.git("checkout", "-qb", "side")
    wanted = new_model(tracked, "new/x.safetensors", seed=5)
    for branch, text in (("side", "print(1)\n"), ("main", "print(2)\n")):
        tracked.git("checkout", "-q", branch)
        tracked.write("code.py", text)
        tracked.git("add", ".")
        tracked.git("commit", "-qm", branch)
    if program == "git":
        assert tracked.try_git(*how).returncode
    else:
        tracked.theta(*how, code=1)
    assert tracked.git("diff", "--name-only", "--diff-filter=U") == "code.py"
    assert sha256(tracked.path / "new/x.safetensors") == wanted
    tracked.write("code.py", "print(3)\n")
    tracked.theta("add", "-A")
