"""Plain ``git checkout``, ``switch``, ``restore`` and ``reset``; large files; nothing is overwritten."""

from __future__ import annotations

import pytest

from tests.compat.agreement import assert_agreement, git_status
from tests.compat.made import diverged
from tests.compat.story import MODEL, commit, digest, edit, run_either
from tests.support import Repo


def test_checkout_back_and_forth(tracked: Repo) -> None:
    main, side = diverged(tracked, "layer.1.weight", "layer.0.weight")
    assert_agreement(tracked, {MODEL: main})
    tracked.git("checkout", "-q", "side")
    assert_agreement(tracked, {MODEL: side})
    tracked.git("switch", "-q", "main")
    assert_agreement(tracked, {MODEL: main})


def test_checkout_to_before_the_checkpoint_and_back(tracked: Repo) -> None:
    old = digest(tracked)
    tracked.git("checkout", "-q", "HEAD~1")
    assert not (tracked.path / MODEL).exists()
    assert_agreement(tracked)
    tracked.git("checkout", "-q", "main")
    assert_agreement(tracked, {MODEL: old})


def test_large_files_are_written_by_the_hook(tracked: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THETA_SMUDGE_LIMIT", "1000")
    main, side = diverged(tracked, "layer.1.weight", "layer.0.weight")
    tracked.git("checkout", "-q", "side")
    assert_agreement(tracked, {MODEL: side})
    tracked.git("reset", "-q", "--hard", "main")
    assert_agreement(tracked, {MODEL: main})
    edit(tracked, "layer.1.weight")
    tracked.git("restore", MODEL)
    assert_agreement(tracked, {MODEL: main})


@pytest.mark.parametrize(
    "command", ["reset --hard HEAD~1", "checkout HEAD~1 -- :/", "restore -s HEAD~1 -SW ."]
)
def test_back_to_the_version_before(tracked: Repo, command: str) -> None:
    old = digest(tracked)
    commit(tracked, "layer.1.weight")
    tracked.git(*command.split())
    assert_agreement(tracked, {MODEL: old})
    assert git_status(tracked) == ([] if "reset" in command else [f"M  {MODEL}"])


def test_reset_mixed_and_soft_keep_the_file(tracked: Repo) -> None:
    new = commit(tracked, "layer.1.weight")
    tracked.git("reset", "-q", "--soft", "HEAD~1")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f"M  {MODEL}"]
    tracked.git("reset", "-q", "--mixed", "HEAD")
    assert_agreement(tracked, {MODEL: new})
    assert git_status(tracked) == [f" M {MODEL}"]
    tracked.git("commit", "-q", "-am", "again")
    assert_agreement(tracked, {MODEL: new})


def test_reset_hard_drops_changes(tracked: Repo) -> None:
    old = digest(tracked)
    edit(tracked, "layer.1.weight")
    tracked.git("add", MODEL)
    edit(tracked, "layer.2.weight")
    tracked.git("reset", "-q", "--hard")
    assert_agreement(tracked, {MODEL: old})


@pytest.mark.parametrize("program", ["git", "theta"])
@pytest.mark.parametrize("command", ["checkout side", "switch side", "merge side", "merge next"])
def test_a_modified_checkpoint_is_not_overwritten(tracked: Repo, program: str, command: str) -> None:
    diverged(tracked, "layer.1.weight", "layer.0.weight")
    tracked.git("branch", "next")
    tracked.git("reset", "-q", "--hard", "HEAD~1")
    new = edit(tracked, "layer.2.weight")
    head = tracked.git("rev-parse", "HEAD")
    done = run_either(tracked, program, *command.split())
    assert done.returncode != 0, done.stdout + done.stderr
    assert MODEL in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert tracked.git("rev-parse", "HEAD") == head
    assert_agreement(tracked, {MODEL: new})


@pytest.mark.parametrize(
    "command", ["checkout -f side", "switch --discard-changes side", "reset --hard side"]
)
def test_the_flag_overwrites(tracked: Repo, command: str) -> None:
    _, side = diverged(tracked, "layer.1.weight", "layer.0.weight")
    edit(tracked, "layer.2.weight")
    tracked.theta(*command.split())
    assert_agreement(tracked, {MODEL: side})


@pytest.mark.parametrize("command", ["checkout main", "switch main", "merge main"])
@pytest.mark.parametrize("path", [MODEL, "notes.txt"])
def test_an_untracked_file_is_not_overwritten(tracked: Repo, command: str, path: str) -> None:
    """Git 2.39 overwrites it, with a warning, in any sparse checkout; theta must not."""
    tracked.write("notes.txt", "theirs")
    tracked.git("add", "notes.txt")
    tracked.git("commit", "-q", "-m", "notes")
    tracked.git("checkout", "-q", "HEAD~2")
    tracked.write(path, b"mine")
    done = tracked.theta(*command.split(), code=None)
    assert (tracked.path / path).read_bytes() == b"mine"
    assert done.returncode != 0
    assert path in done.stderr


def test_pull_does_not_overwrite_an_untracked_file(tracked: Repo) -> None:
    origin = tracked.path.parent / "origin.git"
    tracked.git("clone", "-q", "--bare", ".", str(origin))
    tracked.git("remote", "add", "origin", origin.as_uri())
    tracked.write("notes.txt", "theirs")
    tracked.git("add", "notes.txt")
    tracked.git("commit", "-q", "-m", "notes")
    tracked.git("push", "-q", "-u", "origin", "main")
    tracked.git("reset", "-q", "--hard", "HEAD~1")
    tracked.write("notes.txt", "mine")
    done = tracked.theta("pull", "--no-rebase", "origin", "main", code=None)
    assert "untracked working tree files would be overwritten by merge:\n\tnotes.txt" in done.stderr
    assert (tracked.path / "notes.txt").read_text() == "mine"
    (tracked.path / "notes.txt").unlink()
    tracked.write("other.txt", "mine")
    tracked.theta("pull", "--no-rebase")
    assert (tracked.path / "notes.txt").read_text() == "theirs"


def test_pull_does_not_overwrite(tracked: Repo) -> None:
    origin = tracked.path.parent / "origin.git"
    tracked.git("clone", "-q", "--bare", ".", str(origin))
    tracked.git("remote", "add", "origin", origin.as_uri())
    commit(tracked, "layer.1.weight")
    tracked.git("push", "-q", "-u", "origin", "main")
    tracked.git("reset", "-q", "--hard", "HEAD~1")
    new = edit(tracked, "layer.1.weight", 5.0)
    for program in ("git", "theta"):
        assert run_either(tracked, program, "pull").returncode != 0
        assert_agreement(tracked, {MODEL: new})
