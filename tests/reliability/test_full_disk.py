"""A disk that is full at any write: nothing is lost, one line says so, and it works when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.harness import FILE, fsck, wait_for_children
from tests.reliability.killing import COMMANDS as KILLED
from tests.reliability.killing import Command, Copies, attempt, edited, look, run, under_way
from tests.support import Repo
from tests.support.repos import describe

_SHARED = ("commit", "git commit", "switch", "merge", "merge average", "rebase", "fetch")
COMMANDS: dict[str, Command] = {
    **{name: KILLED[name] for name in _SHARED},
    "add": Command(("theta", "add", FILE), edited),
    "restore": Command(("theta", "restore", FILE), lambda repo: (repo.path / FILE).unlink()),
    "gc": Command(("theta", "gc", "--prune=now", "--quiet")),
}
FEW = 2
MANY = 200


class Trial(Copies):
    """A command on a disk that is full from some write on."""

    steps = 60  # of one filter or hook, where git starts them

    def measure(self, repo: Repo) -> None:
        """Count the writes of theta."""
        if self.command.args[0] == "git":
            super().measure(repo)
            return
        count = self.place / "steps"
        done = repo.theta(*self.command.args[1:], env={"THETA_TEST_STEPS": str(count)}, code=None)
        assert done.returncode == 0, describe(done)
        self.steps = int(count.read_text())

    def full(self, at: int) -> None:
        """Let write number ``at`` of theta, and all after it, find the disk full."""
        repo = self.fresh()
        env = {"THETA_TEST_FULL_AT": str(at)}
        if self.command.args[0] == "git":
            done = repo.run(*self.command.args, env=env)
        else:
            done = repo.theta(*self.command.args[1:], env=env, code=None)
        wait_for_children(repo)
        self.check(repo, done)

    def check(self, repo: Repo, done: subprocess.CompletedProcess[str]) -> None:
        """Nothing is lost; with room again the command leads to where it does."""
        assert "Traceback" not in done.stderr, describe(done)
        assert "bug in theta" not in done.stderr, describe(done)
        if done.returncode:
            assert any(word in done.stderr.lower() for word in ("space", " free, and ")), describe(done)
        fsck(repo)
        self.assert_whole_file(repo)
        look(repo)
        if name := under_way(repo):
            run(repo, ("theta", name, "--continue"))
        self.repeat(repo)
        self.assert_sound(repo)


def points(trial: Trial, count: int) -> list[int]:
    """At most ``count`` of the steps, first and last among them."""
    last = min(trial.steps, MANY)
    return sorted({1 + (last - 1) * n // max(count - 1, 1) for n in range(count)})


def report(trial: Trial, chosen: list[int]) -> None:
    failures = []
    for at in chosen:
        try:
            trial.full(at)
        except AssertionError as error:
            failures.append(f"write {at}: " + "\n".join(str(error).splitlines()[:12]))
    assert not failures, f"{len(failures)} of {len(chosen)} (of {trial.steps}):\n" + "\n".join(failures)


@pytest.mark.parametrize("name", COMMANDS)
def test_e2_e3_full_at_some_writes(completed: Repo, tmp_path: Path, name: str) -> None:
    trial = Trial(completed, COMMANDS[name], tmp_path)
    report(trial, points(trial, FEW))


@pytest.mark.campaign
@pytest.mark.parametrize("name", COMMANDS)
def test_e2_e3_full_at_every_write(completed: Repo, tmp_path: Path, name: str) -> None:
    trial = Trial(completed, COMMANDS[name], tmp_path)
    report(trial, points(trial, MANY))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MB, where the machine lets a test mount one."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]).returncode
    ):
        pytest.skip("only root can mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.campaign
@pytest.mark.parametrize("name", COMMANDS)
def test_e2_a_real_disk_fills(completed: Repo, small: Path, tmp_path: Path, name: str) -> None:
    trial = Trial(completed, COMMANDS[name], tmp_path)
    failures = []
    for kilobytes in range(0, 200, 8):
        repo = completed.copy(small / "repo")
        COMMANDS[name].before(repo)
        ballast = small / "ballast"
        free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
        ballast.write_bytes(bytes(max(free - kilobytes * 1024, 0)))
        done = attempt(repo, COMMANDS[name].args)
        wait_for_children(repo)
        ballast.unlink()
        try:
            trial.check(repo, done)
        except AssertionError as error:
            failures.append(f"{kilobytes} kB free: " + "\n".join(str(error).splitlines()[:12]))
        subprocess.run(["rm", "-rf", str(repo.path)], check=True)
    assert not failures, f"{len(failures)} of 25:\n" + "\n".join(failures)
