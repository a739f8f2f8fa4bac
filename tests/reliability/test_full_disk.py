"""A disk that is full at any write: nothing is lost, one line says so, and it works when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.harness import FILE, Runner, State, fsck, leftovers, template, wait_for_children, write
from tests.reliability.killing import (
    GITS,
    MAGIC,
    Command,
    Seen,
    complete,
    difference,
    files,
    look,
    run,
    under_way,
)
from tests.support import Repo
from tests.support.repos import describe


def _edit(repo: Repo) -> None:
    write(repo, {"layers.1.w": 2, "emb": 5})


COMMANDS: dict[str, Command] = {
    "add": Command(("theta", "add", FILE), _edit),
    "commit": Command(("theta", "commit", "-a", "-m", "three"), _edit),
    "git commit": Command(("git", "commit", "-q", "-a", "-m", "three"), _edit),
    "switch": Command(("theta", "switch", "other")),
    "merge": Command(("theta", "merge", "other")),
    "merge average": Command(("theta", "merge", "clash", "-X", "average")),
    "rebase": Command(("theta", "rebase", "other")),
    "restore": Command(("theta", "restore", FILE), lambda repo: (repo.path / FILE).unlink()),
    "fetch": Command(("theta", "fetch", "origin")),
    "gc": Command(("theta", "gc", "--prune=now", "--quiet")),
}
FEW = 3
MANY = 200


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    place = tmp_path_factory.mktemp("origin")
    return complete(template(Runner(place), place / "repo"))


class Trial:
    """One command on copies of one repository, on a disk that is full from some write on."""

    def __init__(self, origin: Repo, command: Command, place: Path) -> None:
        self.origin, self.command, self.place = origin, command, place
        self.number = 0
        repo = self.fresh()
        self.old = Seen.of(repo)
        env = {"THETA_TEST_STEPS": str(place / "steps")}
        self.steps = 60  # of one filter or hook, where git starts them
        if command.args[0] == "theta":
            done = repo.theta(*command.args[1:], env=env, code=None)
            assert done.returncode == 0, describe(done)
            self.steps = int((place / "steps").read_text())
        else:
            run(repo, command.args)
        self.new = Seen.of(repo)
        self.files = {self.old.local.file, self.new.local.file, *files(self.origin)}

    def fresh(self) -> Repo:
        self.number += 1
        repo = self.origin.copy(self.place / f"copy{self.number}")
        self.command.before(repo)
        return repo

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
        path = repo.path / FILE
        if path.exists() and not path.read_bytes().startswith(MAGIC):
            assert State.of(repo).file in self.files, "the file is torn"
        look(repo)
        if name := under_way(repo):
            run(repo, ("theta", name, "--continue"))
        now = Seen.of(repo)
        if now != self.new:
            left = difference(now, self.old, self.new)
            assert now.local.history == self.old.local.history, f"neither before nor after: {left}"
            assert now.local.file == self.old.local.file, f"neither before nor after: {left}"
            run(repo, self.command.args)
            now = Seen.of(repo)
            assert now == self.new, f"not as after: {difference(now, self.new)}"
        run(repo, ("theta", "fsck", "--read-data"))
        fsck(repo)
        stale = [name for name in leftovers(repo) if not GITS.search(name)]
        assert not stale, stale


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
def test_e2_e3_full_at_some_writes(origin: Repo, tmp_path: Path, name: str) -> None:
    trial = Trial(origin, COMMANDS[name], tmp_path)
    report(trial, points(trial, FEW))


@pytest.mark.campaign
@pytest.mark.parametrize("name", COMMANDS)
def test_e2_e3_full_at_every_write(origin: Repo, tmp_path: Path, name: str) -> None:
    trial = Trial(origin, COMMANDS[name], tmp_path)
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
def test_e2_a_real_disk_fills(origin: Repo, small: Path, tmp_path: Path, name: str) -> None:
    trial = Trial(origin, COMMANDS[name], tmp_path)
    failures = []
    for kilobytes in range(0, 200, 8):
        repo = origin.copy(small / "repo")
        COMMANDS[name].before(repo)
        ballast = small / "ballast"
        free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
        ballast.write_bytes(bytes(max(free - kilobytes * 1024, 0)))
        args = COMMANDS[name].args
        done = repo.run(*args) if args[0] == "git" else repo.theta(*args[1:], code=None)
        wait_for_children(repo)
        ballast.unlink()
        try:
            trial.check(repo, done)
        except AssertionError as error:
            failures.append(f"{kilobytes} kB free: " + "\n".join(str(error).splitlines()[:12]))
        subprocess.run(["rm", "-rf", str(repo.path)], check=True)
    assert not failures, f"{len(failures)} of 25:\n" + "\n".join(failures)
