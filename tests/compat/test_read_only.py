"""Looking needs no leave to write: repositories on read-only mounts, and of other users."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.story import MODEL, edit, new_model
from tests.support import Repo, make_model, random_tensors, sha256
from tests.support.confined import POWERLESS, READ_ONLY_MACHINE, as_root, read_only
from tests.support.repos import describe

LOOKING = [
    *("theta status", "theta status --short", "theta status -uno", "theta diff", "theta diff --stats HEAD~"),
    *("theta log --stat", "theta show", f"theta show --codecs HEAD:{MODEL}", "theta ls-files"),
    *(f"theta cat HEAD:{MODEL}#embed.weight", f"theta blame {MODEL}", "theta fsck --read-data"),
    *("theta scan HEAD", "theta merge --dry-run side", "theta rev-parse HEAD", "theta branch"),
    *("git status --short", "git diff", "git diff HEAD~", "git archive HEAD", "git log -p -1"),
]
NEEDS_TEMPORARIES = "theta merge --dry-run side"


@pytest.fixture(params=["unchanged", "modified"])
def copied(tmp_path: Path, request: pytest.FixtureRequest) -> Repo:
    """A copy of a clone, so that all stat data are stale."""
    repo = Repo.create(tmp_path / "original")
    repo.theta("track", "*.safetensors")
    new_model(repo)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "model")
    repo.theta("switch", "-c", "side")
    edit(repo, "embed.weight")
    repo.theta("commit", "-am", "aside")
    repo.theta("switch", "main")
    edit(repo, "layer.1.weight")
    repo.theta("commit", "-am", "more")
    copy = repo.copy(tmp_path / "copy")
    if request.param == "modified":
        edit(copy, "layer.2.weight")
    return copy


def look(repo: Repo, command: str) -> tuple[int, str, str]:
    program, *args = command.split()
    done = repo.try_git(*args) if program == "git" else repo.theta(*args, code=None)
    return done.returncode, re.sub("Not Committed Yet [-0-9: ]+", "", done.stdout), done.stderr


@as_root
def test_c3_every_command_that_looks_works_on_a_read_only_mount(copied: Repo, tmp_path: Path) -> None:
    """`status` and `diff` ended with exit 29, plain `git diff` with "clean filter failed"."""
    with read_only(copied.path):
        found = {command: look(copied, command) for command in LOOKING}
    # The same where all may be written, which is done last since it refreshes the stat data.
    expected = {command: look(copied, command) for command in LOOKING}
    assert found == expected
    assert {code for code, _, _ in found.values()} == {0}


@as_root
def test_what_a_dead_command_owes_waits_where_nothing_can_be_written(copied: Repo) -> None:
    """The note that files are owed could not be removed, and each command ended with exit 29."""
    copied.theta("restore", MODEL)
    whole = sha256(copied.path / MODEL)
    (copied.path / MODEL).write_text(copied.git("show", f"HEAD:{MODEL}") + "\n")
    (copied.path / ".git/theta/unfilled").write_text("")
    with read_only(copied.path):
        assert "is still a manifest" in copied.theta("status").stdout
    copied.theta("status")
    assert sha256(copied.path / MODEL) == whole


@as_root
def test_c3_nothing_is_staged_on_a_read_only_mount(copied: Repo) -> None:
    with read_only(copied.path):
        assert copied.theta("add", MODEL, code=29).stderr.count("\n") == 1
        assert "index.lock" in copied.try_git("add", MODEL).stderr


@pytest.fixture
def closed(copied: Repo) -> Iterator[Repo]:
    """The copy with no file or directory that may be written to."""
    places = [copied.path, *copied.path.rglob("*")]
    modes = {place: place.lstat().st_mode for place in places if not place.is_symlink()}
    for place, mode in modes.items():
        place.chmod(mode & 0o555)
    yield copied
    for place, mode in modes.items():
        place.chmod(mode)


def apart(repo: Repo, prefix: list[str], command: str) -> None:
    program, *args = command.split()
    started = [sys.executable, "-m", "theta"] if program == "theta" else [program]
    done = subprocess.run([*prefix, *started, *args], cwd=repo.path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), describe(done)


@pytest.mark.parametrize("command", ["theta status", "theta diff", "git diff --stat"])
def test_c3_a_repository_without_the_right_to_write(closed: Repo, command: str) -> None:
    apart(closed, POWERLESS, command)


@as_root
@pytest.mark.parametrize("copied", ["modified"], indirect=True)
def test_c3_a_machine_without_a_folder_for_temporaries(copied: Repo) -> None:
    inside = [*READ_ONLY_MACHINE, "sh", "-c", 'cd "$0"; exec "$@"', str(copied.path)]
    for command in ("theta status", "git diff --stat"):
        apart(copied, inside, command)
    program = [sys.executable, "-m", "theta", *NEEDS_TEMPORARIES.split()[1:]]
    done = subprocess.run([*inside, *program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        29,
        "error: there is no folder for temporary files\nhint: set TMPDIR to one that can be written\n",
    )


@as_root
def test_c2_kernels_that_cannot_be_kept_are_told_in_one_line(repo: Repo) -> None:
    """Every run compiled for seconds, without a word."""
    repo.theta("track", "*.safetensors")
    make_model(repo.path / MODEL, random_tensors({"large": (300, 300)}))
    repo.theta("add", ".")
    repo.theta("commit", "-m", "model")
    kept = {
        name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    command = [sys.executable, "-m", "theta", "-C", str(repo.path), "cat", f"HEAD:{MODEL}#large"]
    done = subprocess.run(
        [*READ_ONLY_MACHINE, *command], env={**kept, "HOME": "/proc/none"}, capture_output=True, text=True
    )
    hint = "hint: kernels are compiled anew each time; with NUMBA_CACHE_DIR=DIR they are kept in DIR\n"
    assert (done.returncode, done.stderr) == (0, hint), describe(done)
