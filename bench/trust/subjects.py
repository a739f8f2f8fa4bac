"""A command that something happens to, on copies of one repository, and what must hold afterwards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from bench.trust.outcome import FaultError
from tests.reliability.harness import FILE, Runner, leftovers, template, wait_for_children
from tests.reliability.killing import (
    COMMANDS,
    GITS,
    Command,
    Seen,
    Trial,
    complete,
    edited,
)
from tests.reliability.killing import run as run_whole
from tests.support import Repo, make_model, random_tensors
from tests.support.faults import COUNT, Faults
from tests.support.repos import Done, describe
from theta.git.repository import Repository
from theta.porcelain.look import checking
from theta.porcelain.workspace.session import Session


def _gone(repo: Repo) -> None:
    (repo.path / FILE).unlink()


def _added(repo: Repo) -> None:
    make_model(repo.path / "new.pt", random_tensors({"w": (8, 8)}, 9))


def _undoable(repo: Repo) -> None:
    edited(repo)
    repo.theta("commit", "-q", "-a", "-m", "three")


WRITING: Final[dict[str, Command]] = {
    **COMMANDS,
    "add": Command(("theta", "add", FILE), edited),
    "restore": Command(("theta", "restore", FILE), _gone),
    "restore over": Command(("theta", "restore", FILE), edited),
    "restore source": Command(("theta", "restore", "--source", "other", "--staged", "--worktree", FILE)),
    "squash": Command(("theta", "merge", "--squash", "other")),
    "reset": Command(("theta", "reset", "--hard", "other")),
    "checkout": Command(("theta", "checkout", "other")),
    "branch": Command(("theta", "branch", "again", "other")),
    "tag": Command(("theta", "tag", "v1", "other")),
    "amend": Command(("theta", "commit", "-a", "--amend", "--no-edit"), edited),
    "move": Command(("theta", "mv", FILE, "moved.safetensors")),
    "track": Command(("theta", "track", "*.pt"), _added),
    "undo": Command(("theta", "undo"), _undoable),
    "gc": Command(("theta", "gc", "--prune=now", "--quiet")),
}
"""Name -> a command that writes to the repository, the worktree or a remote."""
_ONCE: Final = ("undo", "branch", "tag", "move", "squash", "amend", "stash", "stash pop", "git stash")
"""Commands that do not do the same when they are repeated after their end."""


def origin(place: Path) -> Repo:
    """Make the repository that commands run on: three branches, a checkpoint, a remote."""
    return complete(template(Runner(place), place / "origin"))


class Subject(Trial):
    """A command, its copies, and how much is checked after each.

    If ``deep``, the command is repeated after whatever happened; otherwise only if the repository is
    neither as before nor as after it.
    """

    def __init__(self, origin: Repo, command: Command, place: Path, faults: Faults | None = None) -> None:
        """Run the command on two copies in ``place``: one as it is, one to see what comes of it."""
        self.deep, self.faults, self.steps = True, faults, 0
        place.mkdir()
        super().__init__(origin, command, place)
        self.committed = self.files - {self.old.local.file, self.new.local.file}

    def count(self, kinds: int) -> int:
        """Return how many steps of some kinds the command takes."""
        assert self.faults is not None
        repo = self.fresh()
        self.faults.set(COUNT, kinds=kinds)
        done = self.start(repo)
        steps = self.faults.steps
        self.faults.off()
        assert done.returncode == 0, describe(done)
        self.clear()
        return steps

    def start(self, repo: Repo) -> Done:
        """Run the command, which may fail."""
        program, *args = self.command.args
        return repo.run(program, *args) if program == "git" else repo.theta(*args, code=None)

    def clear(self) -> None:
        """Remove the last copy."""
        wait_for_children(Repo(self.last))
        shutil.rmtree(self.last, ignore_errors=True)

    def repeat(self, repo: Repo) -> None:
        """Repeat the command where that is asked for, or where the repository is in between."""
        now = Seen.of(repo)
        if now == self.new or (now == self.old and not self.deep):
            return
        super().repeat(repo)

    def assert_sound(self, repo: Repo) -> None:
        """Everything is whole, and nothing is left over."""
        sound(repo)
        left = [name for name in leftovers(repo) if not GITS.search(name)]
        if left:
            raise FaultError("other", f"left over: {left}")

    def aftermath(self, repo: Repo, done: Done | None, *, abort: bool = False) -> None:
        """Check what is left, go on, and check what comes of it."""
        wait_for_children(repo)
        if self.faults is not None:
            self.faults.off()
        if done is not None:
            never_a_bug(done)
        git_fsck(repo)
        self.check_left(repo)
        self.recover(repo, abort=abort)
        self.assert_sound(repo)
        self.check_file(repo)

    def check_file(self, repo: Repo) -> None:
        """The file in the worktree is as before or as after."""
        path = repo.path / FILE
        known = {self.old.local.file, self.new.local.file}
        if not path.exists() and "gone" not in known:
            raise FaultError("lost", "the file is gone")
        if path.exists() and Seen.of(repo).local.file not in known:
            raise FaultError("wrong", "the file is neither as before nor as after")


class OnRepositories:
    """A campaign of commands on copies of one repository; the library of faults is loaded."""

    names: Final = sorted(WRITING)

    def prepare(self, place: Path) -> None:
        """Load the library, and make the repository whose copies are used."""
        faults = Faults(place, place)
        faults.enter()
        self.use(origin(place), place, faults)

    def use(self, origin: Repo, place: Path, faults: Faults) -> None:
        """Take copies of ``origin``."""
        self.origin, self.place, self.faults = origin, place, faults
        self.subjects: dict[str, Subject] = {}

    def case(self, seed: int, number: int) -> str:
        """Run one case."""
        raise NotImplementedError

    def subject(self, name: str) -> Subject:
        """Return the subject of a command, made on first use."""
        if name not in self.subjects:
            place = self.place / name.replace(" ", "-")
            shutil.rmtree(place, ignore_errors=True)
            self.subjects[name] = Subject(self.origin, WRITING[name], place, self.faults)
        return self.subjects[name]


def sound(repo: Repo) -> None:
    """All commits of ``repo`` have all that belongs to them: each chunk of each tensor is read."""
    git_fsck(repo)
    session = Session(Repository.discover(repo.path))
    found = list(checking.problems(session, checking.Owed(), read_data=True))
    if found:
        raise FaultError("lost", "; ".join(found))


def git_fsck(repo: Repo, *options: str) -> None:
    """Assert that git finds nothing wrong, dangling objects aside."""
    done = repo.try_git("fsck", "--full", "--strict", "--no-dangling", "--no-progress", *options)
    if done.returncode:
        raise FaultError("lost", describe(done))


def never_a_bug(done: Done) -> None:
    """Assert that a command that failed says why, and that it is no bug."""
    said = done.stdout + done.stderr
    if done.returncode == 70 or "Traceback" in said or "this is a bug" in said:
        raise FaultError("other", describe(done))
    if done.returncode > 0 and not said.strip() and os.path.basename(str(done.args[0])) == "theta":
        raise FaultError("other", f"no reason: {describe(done)}")


def finish(repo: Repo, command: Command) -> None:
    """Run a whole command, which must succeed."""
    run_whole(repo, command.args)
