"""``theta resolve``: conflicts in checkpoints, left by git or by theta."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.compat.agreement import assert_agreement, git_status, index_entries
from tests.compat.inprocess import committed, shift, theta
from tests.compat.story import MODEL, TENSOR, digest, edit, new_model
from tests.support import Repo

CONTINUES = {"GIT_EDITOR": "true"}


def by_merge(repo: Repo) -> None:
    assert repo.try_git("merge", "side").returncode == 1


def by_cherry_pick(repo: Repo) -> None:
    assert repo.try_git("cherry-pick", "side").returncode == 1


def by_rebase(repo: Repo) -> None:
    repo.git("checkout", "-q", "side")
    assert repo.try_git("rebase", "main").returncode == 1


def by_stash(repo: Repo) -> None:
    repo.git("checkout", "-q", "main~1")
    edit(repo, TENSOR, 2.0)
    repo.git("stash")
    repo.git("checkout", "-q", "main")
    assert repo.try_git("stash", "pop").returncode == 1


def by_pull(repo: Repo) -> None:
    assert repo.try_git("pull", "--no-rebase", "-q", ".", "side").returncode == 1


def by_revert(repo: Repo) -> None:
    """Main holds +1 and later +5: undoing the first conflicts."""
    repo.git("tag", "first")
    committed(repo, (TENSOR, 5.0))
    assert repo.try_git("revert", "--no-edit", "first").returncode == 1


Leaver = Callable[[Repo], None]
ENDS: dict[Leaver, list[str]] = {
    by_merge: ["commit", "-q", "--no-edit"],
    by_cherry_pick: ["cherry-pick", "--continue"],
    by_rebase: ["rebase", "--continue"],
    by_stash: [],
    by_pull: ["commit", "-q", "--no-edit"],
    by_revert: ["revert", "--continue"],
}


@pytest.mark.parametrize("left", ENDS, ids=lambda left: left.__name__)
def test_whoever_left_the_conflict(forked: Repo, left: Leaver) -> None:
    left(forked)
    told = theta(forked, "resolve", code=1)
    assert TENSOR in told.out
    assert "theta resolve -X" in told.err
    assert TENSOR in theta(forked, "status").out
    theta(forked, "resolve", "-X", "average")
    assert not [entry for entry in index_entries(forked) if entry.stage]
    assert shift(forked, TENSOR) == (3.0 if left is by_revert else 1.5)
    if ENDS[left]:
        forked.git(*ENDS[left], env=CONTINUES)
    assert_agreement(forked, {MODEL: digest(forked)})
    assert git_status(forked) == ([] if ENDS[left] else [f"M  {MODEL}"])


def test_a_file_of_the_users_own_is_not_overwritten(forked: Repo) -> None:
    by_merge(forked)
    mine = new_model(forked, seed=77)
    told = theta(forked, "resolve", "-X", "ours", code=14)
    assert "neither side" in told.err
    assert digest(forked) == mine
    theta(forked, "add", MODEL)
    assert "nothing is in conflict" in theta(forked, "resolve").out
    theta(forked, "merge", "--continue")
    assert_agreement(forked, {MODEL: mine})


def test_paths_and_files_that_are_no_checkpoints(forked: Repo) -> None:
    for branch, seed in (("side", 5), ("main", 6)):
        theta(forked, "switch", "-q", branch)
        new_model(forked, "other.safetensors", seed)
        forked.write("code.py", f"print({seed})\n")
        theta(forked, "add", ".")
        theta(forked, "commit", "-q", "-m", "more")
    theta(forked, "merge", "side", code=1)
    (forked.path / "sub").mkdir()
    theta(forked, "resolve", "-X", "ours", "../other.safetensors", code=1, cwd="sub")
    unmerged = {entry.path for entry in index_entries(forked) if entry.stage}
    assert unmerged == {MODEL, "code.py"}
    told = theta(forked, "resolve", "-X", "theirs", code=1)
    assert "CONFLICT: code.py" in told.out
    assert MODEL not in told.out.split("CONFLICT")[1]
    forked.write("code.py", "print()\n")
    theta(forked, "add", "code.py")
    theta(forked, "merge", "--continue")
    assert forked.git("log", "-1", "--format=%(trailers:key=Theta-Merge,valueonly)").splitlines() == [
        "-X ours -- other.safetensors",
        "-X theirs",
    ]
    assert "the same tree" in theta(forked, "merge", "--replay", "HEAD").out


@pytest.mark.parametrize("side", ["ours", "theirs", "base"])
def test_a_checkpoint_that_one_side_deleted(forked: Repo, side: str) -> None:
    old, ours = forked.git("rev-parse", "main~1"), digest(forked)
    theta(forked, "switch", "-q", "-c", "gone", "main~1")
    theta(forked, "rm", "-q", MODEL)
    theta(forked, "commit", "-q", "-m", "gone")
    theta(forked, "switch", "-q", "main")
    theta(forked, "merge", "-X", side, "gone", code=1)
    assert "one side has no such file" in theta(forked, "resolve", code=1).out
    theta(forked, "resolve", "-X", side)
    theta(forked, "merge", "--continue")
    assert (forked.path / MODEL).exists() == (side != "theirs")
    if side == "ours":
        assert_agreement(forked, {MODEL: ours})
    if side == "base":
        assert forked.git("diff", "--stat", old, "HEAD") == ""


def test_histories_that_cross(forked: Repo) -> None:
    """Two best ancestors, in conflict themselves: what they disagree on stays a conflict, as in git."""
    theta(forked, "branch", "left", "main")
    theta(forked, "branch", "right", "side")
    for here, there, strategy in (("left", "side", "ours"), ("right", "main", "ours")):
        theta(forked, "switch", "-q", here)
        theta(forked, "merge", "-q", "-X", strategy, there)
    committed(forked, ("head.weight", 1.0))
    theta(forked, "switch", "-q", "left")
    committed(forked, ("embed.weight", 1.0))
    assert len(forked.git("merge-base", "--all", "left", "right").split()) == 2
    assert forked.try_git("merge", "right").returncode == 1
    told = theta(forked, "resolve", code=1)
    assert [line.split()[0] for line in told.out.splitlines() if "both" in line][1:] == [TENSOR]
    theta(forked, "resolve", "-X", "average")
    theta(forked, "merge", "--continue")
    assert [shift(forked, name) for name in (TENSOR, "head.weight", "embed.weight")] == [1.5, 1.0, 1.0]
    assert_agreement(forked, {MODEL: digest(forked)})
