"""``git rebase``, ``cherry-pick`` and ``revert``; theta's commands of these names are in test_sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, assert_history, git_status
from tests.compat.made import diverged
from tests.compat.story import MODEL, combined, commit, digest, run_either
from tests.support import Repo

WRITES = {"GIT_EDITOR": "true"}


def test_clean_rebase(tracked: Repo, tmp_path: Path) -> None:
    diverged(tracked, "layer.1.weight", "layer.2.weight")
    commit(tracked, "head.weight", 4.0)
    tracked.git("rebase", "side")
    changes = [("layer.1.weight", 1.0), ("layer.2.weight", 2.0), ("head.weight", 4.0)]
    assert_agreement(tracked, {MODEL: combined(tracked, tmp_path / "combined", *changes)})
    assert_history(tracked)


@pytest.mark.parametrize("how", ["git checkout --theirs", "git checkout --ours", "theta restore --theirs"])
def test_rebase_with_a_conflict(tracked: Repo, how: str) -> None:
    """During a rebase "theirs" is the commit that is being applied."""
    main, side = diverged(tracked, "layer.1.weight", "layer.1.weight")
    program, command, flag = how.split()
    assert tracked.try_git("rebase", "side").returncode == 1
    done = run_either(tracked, program, command, flag, MODEL)
    assert done.returncode == 0, done.stderr
    tracked.git("add", MODEL)
    done = tracked.try_git("rebase", "--continue", env=WRITES)
    if flag == "--theirs":
        assert done.returncode == 0, done.stderr
    elif done.returncode:
        tracked.git("rebase", "--skip")
    assert_agreement(tracked, {MODEL: main if flag == "--theirs" else side})
    assert_history(tracked)
    assert git_status(tracked) == []


def test_rebase_of_more_commits_after_a_conflict(tracked: Repo, tmp_path: Path) -> None:
    diverged(tracked, "layer.1.weight", "layer.1.weight")
    commit(tracked, "layer.2.weight", 2.0)
    commit(tracked, "head.weight", 4.0)
    assert tracked.try_git("rebase", "side").returncode == 1
    tracked.git("checkout", "--theirs", MODEL)
    tracked.git("add", MODEL)
    tracked.git("rebase", "--continue", env=WRITES)
    changes = [("layer.1.weight", 1.0), ("layer.2.weight", 2.0), ("head.weight", 4.0)]
    assert_agreement(tracked, {MODEL: combined(tracked, tmp_path / "combined", *changes)})
    assert_history(tracked)
    assert tracked.git("rev-list", "--count", "HEAD") == "6"


def test_rebase_abort(tracked: Repo) -> None:
    main, _ = diverged(tracked, "layer.1.weight", "layer.1.weight")
    assert tracked.try_git("rebase", "side").returncode == 1
    tracked.git("rebase", "--abort")
    assert_agreement(tracked, {MODEL: main})


def test_interactive_rebase_squashes(tracked: Repo) -> None:
    commit(tracked, "layer.1.weight")
    commit(tracked, "layer.2.weight")
    new = commit(tracked, "layer.1.weight", 2.0)
    editor = "sed -i -e '2,$s/^pick/fixup/'"
    tracked.git("rebase", "-i", "HEAD~3", env={"GIT_SEQUENCE_EDITOR": editor})
    assert_agreement(tracked, {MODEL: new})
    assert_history(tracked)
    assert tracked.git("rev-list", "--count", "HEAD") == "3"


def test_interactive_rebase_drops_one(tracked: Repo, tmp_path: Path) -> None:
    commit(tracked, "layer.0.weight", 1.0)
    commit(tracked, "head.weight", 3.0)
    tracked.git("rebase", "-i", "HEAD~2", env={"GIT_SEQUENCE_EDITOR": "sed -i 1d"})
    want = combined(tracked, tmp_path / "combined", ("head.weight", 3.0))
    assert_agreement(tracked, {MODEL: want})
    assert_history(tracked)


def test_rebase_with_autostash(tracked: Repo, tmp_path: Path) -> None:
    from tests.compat.story import edit

    diverged(tracked, "layer.1.weight", "layer.2.weight")
    edit(tracked, "head.weight", 4.0)
    tracked.git("rebase", "--autostash", "side")
    changes = [("layer.1.weight", 1.0), ("layer.2.weight", 2.0), ("head.weight", 4.0)]
    assert_agreement(tracked, {MODEL: combined(tracked, tmp_path / "combined", *changes)})
    assert git_status(tracked) == [f" M {MODEL}"]


def test_cherry_pick(tracked: Repo, tmp_path: Path) -> None:
    diverged(tracked, "layer.1.weight", "layer.2.weight")
    tracked.git("cherry-pick", "side")
    want = combined(tracked, tmp_path / "combined", ("layer.1.weight", 1.0), ("layer.2.weight", 2.0))
    assert_agreement(tracked, {MODEL: want})
    assert_history(tracked)


def test_cherry_pick_with_a_conflict(tracked: Repo) -> None:
    _, side = diverged(tracked, "layer.1.weight", "layer.1.weight")
    assert tracked.try_git("cherry-pick", "side").returncode == 1
    tracked.git("checkout", "--theirs", MODEL)
    tracked.git("add", MODEL)
    tracked.git("cherry-pick", "--continue", env=WRITES)
    assert_agreement(tracked, {MODEL: side})
    assert_history(tracked)


def test_cherry_pick_without_commit(tracked: Repo) -> None:
    main, _ = diverged(tracked, "layer.1.weight", "layer.2.weight")
    tracked.git("cherry-pick", "-n", "side")
    assert_agreement(tracked)
    assert git_status(tracked) == [f"M  {MODEL}"]
    tracked.git("restore", "-SW", MODEL)
    assert_agreement(tracked, {MODEL: main})


def test_revert(tracked: Repo) -> None:
    old = digest(tracked)
    commit(tracked, "layer.1.weight")
    tracked.git("revert", "--no-edit", "HEAD")
    assert_agreement(tracked, {MODEL: old})


def test_revert_of_an_older_commit(tracked: Repo, tmp_path: Path) -> None:
    commit(tracked, "layer.1.weight")
    commit(tracked, "head.weight", 3.0)
    tracked.git("revert", "--no-edit", "HEAD~1")
    want = combined(tracked, tmp_path / "combined", ("head.weight", 3.0))
    assert_agreement(tracked, {MODEL: want})


def test_bisect(tracked: Repo) -> None:
    versions = {"HEAD": digest(tracked)}
    for step in range(4):
        new = commit(tracked, "layer.1.weight", step + 1.0)
        versions[tracked.git("rev-parse", "HEAD")] = new
    tracked.git("bisect", "start", "HEAD", "HEAD~4")
    assert_agreement(tracked, {MODEL: versions[tracked.git("rev-parse", "HEAD")]})
    tracked.git("bisect", "reset")
    assert_agreement(tracked, {MODEL: new})


def test_format_patch_and_am(tracked: Repo) -> None:
    new = commit(tracked, "layer.1.weight")
    patch = tracked.git("format-patch", "-1", "--stdout")
    tracked.git("reset", "-q", "--hard", "HEAD~1")
    tracked.git("am", "-q", stdin=patch + "\n")
    assert_agreement(tracked, {MODEL: new})
    assert_history(tracked)
