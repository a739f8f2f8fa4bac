"""``kill -9`` at random moments of ``commit`` and ``restore``, as a user's shell would see it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.reliability.harness import FILE, Runner, fsck, leftovers, wait_for_children, write
from tests.support import Repo, sha256
from tests.support.environment import dated

ROUNDS = 6


def start(repo: Repo, *args: str) -> subprocess.Popen[bytes]:
    """The command that is killed; all others run in forks of the server."""
    repo.ticks += 1
    return subprocess.Popen(
        [sys.executable, "-m", "theta", *args],
        cwd=repo.path,
        env=os.environ | dated(repo.ticks),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def duration(repo: Repo, *args: str) -> float:
    begun = time.monotonic()
    assert start(repo, *args).wait() == 0
    return time.monotonic() - begun


def kill(repo: Repo, after: float, *args: str) -> bool:
    """Start a command and kill it; return whether it was still running."""
    child = start(repo, *args)
    time.sleep(after)
    child.kill()
    return child.wait() == -9


def check(runner: Runner, repo: Repo) -> None:
    """Check what must hold after the next command, whichever it was."""
    assert leftovers(repo) == []
    fsck(repo)
    runner.ok(repo, "fsck", "--read-data")
    assert repo.git("status", "--porcelain") == ""
    assert repo.git("ls-files", "-u") == ""


def rounds(runner: Runner, origin: Repo, place: Path, command: str, count: int) -> Counter[str]:
    """Kill ``command`` ``count`` times; after each, its repetition just works."""
    seen: Counter[str] = Counter()
    moments = random.Random(command)
    repo = origin.copy(place / "repo")
    runner.ok(repo, "status")
    length = measure(origin.copy(place / "measure"), command)
    for number in range(count):
        moment = moments.uniform(0.05, 1.1) * length
        try:
            seen[one(runner, repo, command, number, moment)] += 1
        except AssertionError as error:
            raise AssertionError(
                f"round {number}, killed after {moment:.3f} s of {length:.3f}: {error}"
            ) from error
    return seen


def measure(repo: Repo, command: str) -> float:
    prepare(repo, command, 999)
    length = duration(repo, *arguments(command, 999))
    shutil.rmtree(repo.path)
    return length


def arguments(command: str, number: int) -> tuple[str, ...]:
    return ("commit", "-a", "-m", f"round {number}") if command == "commit" else ("restore", FILE)


def prepare(repo: Repo, command: str, number: int) -> str:
    """Give the command something to do in the worktree; return the sha256 that it must end with."""
    if command == "commit":
        return write(repo, {"emb": 100 + number, "norm": number})
    wanted = sha256(repo.path / FILE)
    if number % 2:
        (repo.path / FILE).unlink()
    else:
        write(repo, {"emb": 100 + number})
    return wanted


def one(runner: Runner, repo: Repo, command: str, number: int, moment: float) -> str:
    wanted = prepare(repo, command, number)
    path = repo.path / FILE
    head, changed = repo.git("rev-parse", "HEAD"), sha256(path) if path.exists() else "gone"
    hit = kill(repo, moment, *arguments(command, number))
    if number % 2:
        wait_for_children(repo)
        fsck(repo)
        assert repo.git("rev-parse", "HEAD") == head or repo.git("rev-parse", "HEAD^") == head
        assert (sha256(path) if path.exists() else "gone") in (changed, wanted)
    runner.ok(repo, *arguments(command, number), codes=(0, 1) if command == "commit" else (0,))
    assert sha256(path) == wanted
    if command == "commit":
        assert repo.git("rev-parse", "HEAD^") == head
    check(runner, repo)
    return "killed" if hit else "too late"


@pytest.mark.parametrize("command", ["commit", "restore"])
def test_killed_at_some_moments(runner: Runner, origin: Repo, tmp_path: Path, command: str) -> None:
    seen = rounds(runner, origin, tmp_path, command, ROUNDS)
    assert seen["killed"] >= ROUNDS // 3, seen


@pytest.mark.campaign
@pytest.mark.parametrize("command", ["commit", "restore"])
def test_killed_at_a_hundred_moments(runner: Runner, origin: Repo, tmp_path: Path, command: str) -> None:
    seen = rounds(runner, origin, tmp_path, command, 150)
    assert seen["killed"] >= 100, seen
