"""Git is killed before each thing that it does to a file: the command was not begun, goes on or is done.

Last figures, 26 Nov 2026; git was killed alone, and with theta, at each step unless it says otherwise:

- restore: 4 of 4 passed; switch: 54 of 54; push: 216 of 226, and the others once the remote was unlocked;
- stash pop: 76 of 86, cherry-pick in conflict: 82 of 96, merge in conflict: 134 of 138; the steps that
  failed were mended and passed;
- rebase two: 530 of 542; mended by kind, not run again;
- pull by rebase, git alone: 189 of 207; the rest are a git that git started: its locks, and its steps;
- commit, git alone: 43 of 50; the lock of the branch stays;
- merge, every fourth step: 49 of 56; merge average, another fourth: 47 of 50; merge by steps, another
  fourth: 68 of 70. What is left: git was killed by another git, which tells nobody; its lock stays, since
  it may be of a living one that is not seen from here (a container, another host). A git that is killed
  between the merge commit and the removal of ``MERGE_HEAD`` leaves a merge in progress, as with git; one
  that is killed while it writes the message leaves an empty one;
- am, git alone, then ``--abort``: 276 of 284; files of a patch stay, or the first patch does.
  ``am --continue`` applies nothing after a kill: git takes the patch for settled by hand.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.reliability.harness import FILE, fsck, wait_for_children
from tests.reliability.killing import COMMANDS, Command, Copies, Seen, difference, look, run, under_way
from tests.support import Repo
from tests.support.faults import CHANGES, GROWS, KILL, Faults
from tests.support.repos import Done, describe

ALONE = "import os; os.setsid()"
ALL = f"{ALONE}; os.environ['FAULTS_GROUP'] = str(os.getpid())"
"""The code that theta runs first: in a session of its own, git dies alone or takes theta with it."""
PARTS = 4
"""Tests among which the steps of a command are divided."""


def _two(repo: Repo) -> None:
    """Give ``other`` a second commit, and be on ``main``."""
    repo.git("switch", "-q", "other")
    repo.write("two.py", "print('two')\n")
    repo.git("add", "two.py")
    repo.git("commit", "-q", "-m", "two")
    repo.theta("switch", "main")


def _on_other(repo: Repo) -> None:
    _two(repo)
    repo.theta("switch", "other")


def _patches(repo: Repo) -> None:
    _two(repo)
    repo.git("format-patch", "-q", "--binary", "-o", ".git/patches", "main..other")


MORE: dict[str, Command] = {
    **{name: command for name, command in COMMANDS.items() if command.args[0] == "theta"},
    "cherry-pick two": Command(("theta", "cherry-pick", "main..other"), _two),
    "revert two": Command(("theta", "revert", "--no-edit", "HEAD", "HEAD~"), _two),
    "rebase two": Command(("theta", "rebase", "main"), _on_other),
    "pull by rebase": Command(("theta", "pull", "--rebase", "origin", "upstream")),
    "restore": Command(("theta", "restore", FILE), lambda repo: (repo.path / FILE).unlink()),
    "merge in conflict": Command(("theta", "merge", "--no-prompt", "clash"), stops=True),
    "cherry-pick in conflict": Command(("theta", "cherry-pick", "--no-prompt", "clash"), stops=True),
    "squash": Command(("theta", "merge", "--squash", "other")),
    "am": Command(
        ("theta", "am", "-q", "-3", ".git/patches/0001-other.patch", ".git/patches/0002-two.patch"), _patches
    ),
}


class Trial(Copies):
    """A command whose git is killed: theta runs in the server, without the library of faults."""

    def __init__(self, origin: Repo, command: Command, place: Path) -> None:
        self.faults, self.steps = Faults(place, place), 0
        super().__init__(origin, command, place)

    def measure(self, repo: Repo) -> None:
        """Count the steps of git."""
        done = self.start(repo, 0, ALONE)
        assert done.returncode == int(self.command.stops), describe(done)
        self.steps = self.faults.steps

    def start(self, repo: Repo, at: int, first: str) -> Done:
        """Run the command, and kill a git before step ``at``."""
        self.faults.set(KILL, at, GROWS | CHANGES)
        env = {**self.faults.environment, "THETA_TEST_FIRST": first}
        return repo.theta(*self.command.args[1:], env=env, code=None)

    def kill(self, at: int, first: str, *, abort: bool) -> None:
        """Kill before step ``at``, go on or ``abort``, and look at what comes of it."""
        repo, abort = self.fresh(), abort or self.command.stops
        done = self.start(repo, at, first)
        wait_for_children(repo)
        unlock_remote(repo)
        fsck(repo)
        look(repo, by_theta=self.command.args[0] == "theta")
        if name := under_way(repo):
            own = self.command.args[1]  # git's files do not tell am from rebase, or revert from cherry-pick
            name = own if own in ("am", "revert") else name
            run(repo, ("theta", name, "--abort" if abort else "--continue"))
        assert under_way(repo) == "", describe(done)
        self.assert_whole_file(repo)
        if self.command.stops:
            now = Seen.of(repo)
            assert now == self.old, f"not as before: {difference(now, self.old)}"
        elif not self.command.loose:
            self.repeat(repo)
        self.assert_sound(repo)
        shutil.rmtree(repo.path)


def unlock_remote(repo: Repo) -> None:
    """Remove the locks of a killed git in the remote, as its owner does: theta leaves them alone."""
    for lock in (repo.path / ".git" / "remote.git").rglob("*.lock"):
        lock.unlink()


def report(trial: Trial, chosen: list[int]) -> None:
    failures = []
    for number, at in enumerate(chosen):
        for first in (ALL, ALONE):
            abort = number % 2 == (first is ALL)
            try:
                trial.kill(at, first, abort=abort)
            except AssertionError as error:
                about = f"step {at}, {'all' if first is ALL else 'git alone'}, {abort=}: "
                failures.append(about + "\n".join(str(error).splitlines()[:14]))
    assert not failures, f"{len(failures)} of {2 * len(chosen)} ({trial.steps} steps):\n" + "\n".join(
        failures
    )


@pytest.mark.campaign
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", MORE)
def test_e1_killed_before_each_step(completed: Repo, tmp_path: Path, name: str, part: int) -> None:
    trial = Trial(completed, MORE[name], tmp_path)
    report(trial, list(range(1 + part, trial.steps + 1, PARTS)))
