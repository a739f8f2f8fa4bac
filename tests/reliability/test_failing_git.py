"""A git that fails halfway, on a full disk say, leaves the worktree as it was."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.harness import State, fsck, leftovers, wait_for_children
from tests.support import Repo
from tests.support.faults import FULL, GROWS, Faults
from tests.support.repos import describe
from theta.git.repository import Repository
from theta.git.run import Git, GitFailedError
from theta.porcelain.workspace import rollback

LIMIT = 200_000
"""Bytes that a git may write into a file before it dies; ``large.txt`` of branch ``other`` has more."""
FREE = 250_000
"""Bytes that are free on the real disk; the files of branch ``other`` need more."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "switch": ("switch", "other"),
    "checkout": ("checkout", "other"),
    "reset": ("reset", "--keep", "other"),
    "merge": ("merge", "other"),
    "merge by steps": ("merge", "--no-ff", "--no-prompt", "-s", "ort", "other"),
    "squash": ("merge", "--squash", "other"),
    "pull": ("pull", "--no-rebase", "--no-edit", ".", "other"),
    "cherry-pick": ("cherry-pick", "other"),
    "rebase": ("rebase", "other"),
    "stash pop": ("stash", "pop"),
}
ON_A_REAL_DISK = ("switch", "merge", "merge by steps", "rebase", "stash pop")


def _text(name: str, size: int) -> str:
    """Text that hardly shrinks."""
    return random.Random(name).randbytes(size // 2).hex() + "\n"


def _write(repo: Repo, of: str) -> None:
    for number in range(4):
        repo.write(f"file{number}.txt", _text(f"{of}{number}", 30_000))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """``main``, and a branch ``other`` and a stash that bring and change files, some large."""
    place = tmp_path_factory.mktemp("origin")
    repo = Repo.create(place / "repo")
    repo.theta("track", "*.safetensors")
    _write(repo, "base")
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "files")
    repo.git("branch", "other")
    repo.write("main.txt", "main\n")
    repo.git("add", "main.txt")
    repo.git("commit", "-q", "-m", "main")
    repo.git("switch", "-q", "other")
    _write(repo, "other")
    repo.write("large.txt", _text("large", 400_000))
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "other")
    repo.git("switch", "-q", "main")
    _write(repo, "stashed")
    repo.write("large.txt", _text("large", 400_000))
    repo.git("stash", "-q", "-u")
    repo.git("gc", "-q")
    repo.theta("status")
    return repo


def _state(repo: Repo) -> tuple[State, str, dict[str, bytes]]:
    files = {path.name: path.read_bytes() for path in repo.path.iterdir() if path.is_file()}
    return State.of(repo), repo.git("status", "--porcelain"), files


def _check(origin: Repo, repo: Repo, command: tuple[str, ...]) -> None:
    """All is as before, and with room the command does what it does."""
    assert _state(repo) == _state(origin)
    assert not [path.name for path in (repo.path / ".git").glob("*.lock")]
    if (repo.path / ".git/rebase-merge").exists():  # of a git that died as it began
        repo.theta("rebase", "--abort")
    repo.theta(*command)
    assert (repo.path / "large.txt").stat().st_size > LIMIT
    assert leftovers(repo) == []
    fsck(repo)


@pytest.mark.parametrize("name", COMMANDS)
def test_e2_a_git_that_dies_of_a_large_file_leaves_all_as_before(
    origin: Repo, tmp_path: Path, name: str
) -> None:
    repo = origin.copy(tmp_path / "repo")
    done = repo.theta(*COMMANDS[name], env={"THETA_TEST_FILE_SIZE": str(LIMIT)}, code=None)
    assert done.returncode, describe(done)
    assert "Traceback" not in done.stderr, describe(done)
    wait_for_children(repo)
    _check(origin, repo, COMMANDS[name])


@pytest.mark.parametrize("words", [("file0.txt", "new"), ("file0.txt", "file1.txt", "in"), ("in", "out")])
def test_e2_a_git_that_cannot_write_the_index_renames_nothing(
    origin: Repo, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Git renames the files first; each was then there twice, and the next mv refused both."""
    repo, faults = origin.copy(tmp_path / "repo"), Faults(tmp_path, tmp_path)
    repo.write("in/more.txt", "more\n")
    repo.git("add", "in")
    repo.write("file0.txt", "edited\n")
    before, failed, at = _tree(repo), 0, 0
    while True:
        at += 1
        faults.set(FULL, at, GROWS)
        done = repo.theta("mv", *words, env=faults.environment, code=None)
        faults.off()
        if not done.returncode:
            break
        assert _tree(repo) == before, f"step {at}"
        failed += 1
    assert failed
    assert _tree(repo) != before
    assert not repo.git("diff", "--name-only", "--diff-filter=D")


def _tree(repo: Repo) -> tuple[str, str, list[Path]]:
    files = sorted(path for path in repo.path.rglob("*") if ".git" not in path.parts)
    return repo.git("ls-files", "-s"), repo.git("diff"), files


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount).returncode:
        pytest.skip("only root can mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(place: Path, free: int) -> None:
    now = os.statvfs(place)
    (place / "ballast").write_bytes(bytes(max(now.f_bavail * now.f_frsize - free, 0)))


@pytest.mark.parametrize("name", ON_A_REAL_DISK)
def test_e2_a_git_that_finds_the_disk_full_leaves_all_as_before(origin: Repo, small: Path, name: str) -> None:
    repo = origin.copy(small / "repo")
    _fill(small, FREE)
    done = repo.theta(*COMMANDS[name], code=None)
    assert done.returncode, describe(done)
    assert "Traceback" not in done.stderr, describe(done)
    (small / "ballast").unlink()
    _check(origin, repo, COMMANDS[name])


def test_e2_a_git_that_has_no_room_for_a_lock_says_so(small: Path) -> None:
    repo = Repo.create(small / "repo")
    _fill(small, 0)
    with pytest.raises(GitFailedError) as caught:
        Git(repo.path).run("update-ref", "refs/heads/other", "HEAD")
    assert "no space is left" in caught.value.hint
    (small / "ballast").unlink()
    with pytest.raises(GitFailedError) as caught:
        Git(repo.path).run("update-ref", "refs/heads/other", "nothing")
    assert caught.value.hint == ""


def _killed(repo: Repo, **facts: object) -> Path:
    """Leave the journal of a command that was killed just now."""
    journal = repo.path / ".git/theta/journal"
    journal.write_text(json.dumps({"token": "of nobody", "started": time.time(), **facts}))
    return journal


def test_e3_a_full_disk_while_a_killed_command_is_undone_leaves_that_to_the_next(
    origin: Repo, tmp_path: Path
) -> None:
    repo = origin.copy(tmp_path / "repo")
    repo.git("switch", "-q", "other")
    before = _state(repo)
    repo.git("update-index", "--refresh")
    mark = rollback.mark(Repository.discover(repo.path), ["main"])
    head = repo.git("rev-parse", "HEAD")
    tree = repo.git("rev-parse", "main^{tree}")
    repo.git("read-tree", "-m", "-u", tree)  # a merge that is in the index, while git does not know of it
    journal = _killed(repo, moving=mark, applying={"head": head, "tree": tree})
    limit = {"THETA_TEST_FILE_SIZE": str(LIMIT)}
    for args, told in ((("status",), ""), (("switch", "main"), "cannot be undone"), (("status",), "")):
        done = repo.theta(*args, env=limit, code=None)
        assert bool(done.returncode) is bool(told), describe(done)
        assert told in done.stderr, describe(done)
        assert journal.exists(), f"theta {args[0]} dropped the journal"
    repo.theta("status")
    assert _state(repo) == before
    assert not journal.exists()
    assert leftovers(repo) == []


def test_e2_an_untracked_file_that_git_refuses_to_overwrite_stays(origin: Repo, tmp_path: Path) -> None:
    repo = origin.copy(tmp_path / "repo")
    text = repo.git("show", "other:large.txt") + "\n"
    repo.write("large.txt", text)
    for name in ("switch", "merge", "merge by steps", "cherry-pick", "rebase", "stash pop"):
        done = repo.theta(*COMMANDS[name], code=None)
        assert done.returncode, describe(done)
        assert (repo.path / "large.txt").read_text() == text, name


def test_e2_a_pick_that_cannot_be_committed_stays_staged(origin: Repo, tmp_path: Path) -> None:
    repo = origin.copy(tmp_path / "repo")
    repo.git("switch", "-q", "-c", "behind", "main~")
    repo.git("config", "commit.gpgSign", "true")
    repo.git("config", "gpg.program", "false")
    done = repo.theta("cherry-pick", "--no-ff", "other", code=None)
    assert done.returncode, describe(done)
    assert (repo.path / ".git/CHERRY_PICK_HEAD").exists()
    assert repo.git("write-tree") == repo.git("rev-parse", "other^{tree}")


TWO: dict[str, tuple[str, ...]] = {
    "cherry-pick": ("small", "other"),
    "revert": ("--no-edit", "HEAD", "HEAD~"),
}


@pytest.fixture
def half(origin: Repo, tmp_path: Path, request: pytest.FixtureRequest) -> Repo:
    """Two commits are picked or reverted, and the second one fails: it needs a large file."""
    repo = origin.copy(tmp_path / "repo")
    if request.param == "revert":
        repo.git("switch", "-q", "-c", "without", "other")
        repo.git("rm", "-q", "large.txt")
        repo.git("commit", "-q", "-m", "without")
        repo.write("small.txt", "small\n")
    else:
        repo.git("switch", "-q", "-c", "small", "main")
        repo.write("small.txt", "small\n")
    repo.git("add", "small.txt")
    repo.git("commit", "-q", "-m", "small")
    if request.param == "cherry-pick":
        repo.git("switch", "-q", "main")
        repo.git("commit", "-q", "--allow-empty", "-m", "apart")
    limit = {"THETA_TEST_FILE_SIZE": str(LIMIT)}
    done = repo.theta(request.param, *TWO[request.param], env=limit, code=None)
    assert done.returncode, describe(done)
    assert (repo.path / "small.txt").exists() == (request.param == "cherry-pick"), "the first commit is made"
    return repo


@pytest.mark.parametrize(("half", "name"), [(name, name) for name in TWO], indirect=["half"])
def test_e2_a_later_commit_that_fails_is_made_when_there_is_room(half: Repo, name: str) -> None:
    assert half.git("status", "--porcelain") == ""
    half.theta(name, "--continue")
    assert (half.path / "large.txt").stat().st_size > LIMIT
    assert not (half.path / ".git/sequencer").exists()
    fsck(half)


def test_e2_a_pick_of_two_without_a_commit_that_fails_was_not_begun(origin: Repo, tmp_path: Path) -> None:
    repo = origin.copy(tmp_path / "repo")
    repo.git("switch", "-q", "-c", "small", "main")
    repo.write("small.txt", "small\n")
    repo.git("add", "small.txt")
    repo.git("commit", "-q", "-m", "small")
    repo.git("switch", "-q", "main")
    limit = {"THETA_TEST_FILE_SIZE": str(LIMIT)}
    done = repo.theta("cherry-pick", "-n", "small", "other", env=limit, code=None)
    assert done.returncode, describe(done)
    assert repo.git("status", "--porcelain") == ""
    assert not (repo.path / ".git/sequencer").exists()
    repo.theta("cherry-pick", "-n", "small", "other")
    assert {"large.txt", "small.txt"} <= {*repo.git("diff", "--cached", "--name-only").split()}


@pytest.mark.parametrize(("half", "name"), [(name, name) for name in TWO], indirect=["half"])
def test_e2_all_commits_are_given_up_when_a_later_one_fails(half: Repo, name: str) -> None:
    half.theta(name, "--abort")
    assert half.git("log", "-1", "--format=%s") == {"cherry-pick": "apart", "revert": "small"}[name]
    assert half.git("status", "--porcelain") == ""
    assert not (half.path / ".git/sequencer").exists()
