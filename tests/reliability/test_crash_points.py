"""A command that dies at any of its disk steps leaves the repository as before or as after."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from tests.reliability.harness import (
    FILE,
    SCENARIOS,
    Runner,
    State,
    fsck,
    leftovers,
    wait_for_children,
)
from tests.support import Repo

POINTS = 3
"""How many of the steps of a command the default run tries; a campaign tries all."""


class Trial:
    """One scenario on copies of one repository."""

    def __init__(self, runner: Runner, origin: Repo, name: str, place: Path) -> None:
        self.runner, self.origin, self.place = runner, origin, place
        self.scenario = SCENARIOS[name]
        repo = self.fresh()
        self.old = State.of(repo)
        self.steps = runner.steps(repo, *self.scenario.args)
        self.new = State.of(repo)
        assert leftovers(repo) == []

    def fresh(self) -> Repo:
        if (self.place / "copy").exists():
            wait_for_children(Repo(self.place / "copy"))
            shutil.rmtree(self.place / "copy")
        repo = self.origin.copy(self.place / "copy")
        self.scenario.before(repo)
        return repo

    def crash(self, at: int) -> None:
        repo = self.fresh()
        code = self.runner.run(repo, *self.scenario.args, crash_at=at)
        if code == 0 and at == self.steps:  # a step was spared this time: the command came to its end
            assert State.of(repo) == self.new
            assert leftovers(repo) == []
            fsck(repo)
            return
        assert code == -9, f"step {at} of {self.steps} was not reached: {self.runner.log}"
        # A git that the dead theta had started goes on: look at what it leaves, or do not even wait for it.
        if at % 2:
            wait_for_children(repo)
            self.check_untouched(repo)
        self.check_next(repo)

    def check_untouched(self, repo: Repo) -> None:
        """Right after the crash: nothing is in between but what the next theta completes."""
        fsck(repo)
        found = State.of(repo)
        assert found.branch in (self.old.branch, self.new.branch)
        assert found.history in (self.old.history, self.new.history)
        manifest = (repo.path / FILE).exists() and (repo.path / FILE).read_bytes().startswith(
            b"theta checkpoint"
        )
        whole = found.file in (self.old.file, self.new.file)
        assert whole or (manifest and self.scenario.args[0] in ("switch", "merge")), "the file is not whole"

    def check_next(self, repo: Repo) -> None:
        """The next commands just work, and lead to where the dead one was going."""
        self.runner.ok(repo, "status")
        self.runner.ok(repo, *self.scenario.next(repo), codes=self.scenario.codes)
        assert leftovers(repo) == []
        found = State.of(repo)
        assert found == self.new
        rows = repo.git("status", "--short", "--", ".", ":(exclude).theta").splitlines()
        assert self.runner.ok(repo, "status", "--short").splitlines() == rows
        self.runner.ok(repo, "fsck", "--read-data")
        fsck(repo)


@pytest.mark.parametrize("name", SCENARIOS)
def test_some_crash_points(runner: Runner, origin: Repo, tmp_path: Path, name: str) -> None:
    trial = Trial(runner, origin, name, tmp_path)
    chosen = {1 + (trial.steps - 1) * n // (POINTS - 1) for n in range(POINTS)}
    report(trial, sorted(chosen))


@pytest.mark.campaign
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_crash_point(runner: Runner, origin: Repo, tmp_path: Path, name: str) -> None:
    trial = Trial(runner, origin, name, tmp_path)
    report(trial, range(1, trial.steps + 1))


def report(trial: Trial, points: list[int] | range) -> None:
    """Try all of ``points`` before failing, so that one bad step does not hide the others."""
    failures = {}
    for at in points:
        try:
            trial.crash(at)
        except AssertionError as error:
            failures[at] = " ".join(itertools.islice(str(error).splitlines(), 6))
    assert not failures, f"{len(failures)} of {len(points)} crash points (of {trial.steps}): {failures}"
