"""A command that something happens to, on copies of one repository, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.trust import looking
from bench.trust.looking import View
from bench.trust.outcome import FaultError, counted_as
from tests.cli import checks
from tests.reliability.harness import FILE, Runner, fsck, leftovers, template, wait_for_children
from tests.reliability.killing import (
    COMMANDS,
    Command,
    Trial,
    attempt,
    complete,
    edited,
    files,
    left_by_theta,
    under_way,
)
from tests.support import Repo, make_model, random_tensors
from tests.support.faults import COUNT, Faults
from tests.support.repos import Done, describe
from theta.git.repository import Repository
from theta.porcelain.workspace.journal import Journal

_SILENT: Final = ("stash",)
"""Commands of which git (2.39) gives no reason if another one holds the lock of the index."""


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
    "undo": Command(("theta", "undo"), _undoable, resumes=True),
    "gc": Command(("theta", "gc", "--prune=now", "--quiet")),
}
"""Name -> a command that writes to the repository, the worktree or a remote."""


def origin(place: Path) -> Repo:
    """Make the repository that commands run on: three branches, a checkpoint, a remote."""
    return complete(template(Runner(place), place / "origin"))


class Subject(Trial):
    """A command, its copies, and how much is checked after each.

    If ``deep``, theta goes on after whatever happened; otherwise only if the repository is neither as before
    nor as after the command.
    """

    def __init__(self, origin: Repo, command: Command, place: Path, faults: Faults) -> None:
        """Run the command on two copies in ``place``: one as it is, one to see what comes of it."""
        self.deep, self.faults, self.steps = True, faults, 0
        self.prepared: Repo | None = None
        place.mkdir()
        super().__init__(origin, command, place)

    def count(self, kinds: int) -> int:
        """Return how many steps of some kinds the command takes."""
        with self.copied() as repo:
            self.faults.set(COUNT, kinds=kinds)
            done = self.start(repo)
            steps = self.faults.steps
        assert done.returncode == 0, describe(done)
        return steps

    def start(self, repo: Repo) -> Done:
        """Run the command, which may fail."""
        return attempt(repo, self.command.args)

    def fresh(self) -> Repo:
        """Copy the repository; what comes before the command is done once."""
        if self.prepared is None:
            self.prepared = super().fresh()
        self.number += 1
        return self.prepared.copy(self.place / f"copy{self.number}")

    @contextlib.contextmanager
    def copied(self) -> Iterator[Repo]:
        """Make a new copy, prepared, which is removed in the end."""
        repo = self.fresh()
        with ended(self.faults, repo.path):
            yield repo

    def measure(self, repo: Repo) -> None:
        """Take the time of the command, and look at what it makes."""
        self.before = View.of(repo.path)
        super().measure(repo)
        self.after = View.of(repo.path)

    def aftermath(self, repo: Repo, done: Done | None, *, abort: bool = False) -> None:
        """Check what is left, go on, and check what comes of it.

        Nothing more is done if the repository is as before or as after, unless :attr:`deep`.
        """
        if done is not None:
            never_a_bug(done)
        self._check_left(repo)
        now = View.of(repo.path)
        if self.deep or now not in (self.before, self.after) or self._is_open(repo):
            self._go_on(repo, abort=abort)

    def _is_open(self, repo: Repo) -> bool:
        """Return whether the next theta has something to do."""
        is_left = Journal(Repository.discover(repo.path)).is_left
        return bool(under_way(repo) or is_left or leftovers(repo))

    def _check_left(self, repo: Repo) -> None:
        """Nothing is lost, and each branch is where it was or will be."""
        looking.sound(repo.path, anew=self.deep)
        if (remote := repo.path / ".git" / "remote.git").is_dir():
            looking.walk(remote)
        now, known = View.of(repo.path), {*self.before.refs, *self.after.refs}
        if not self.command.loose and (between := {*now.refs} - known):
            raise FaultError("wrong", f"a branch is in between: {between}")
        if gone := {name for name, _ in set(self.before.refs) & set(self.after.refs)} - dict(now.refs).keys():
            raise FaultError("lost", f"a branch is gone: {gone}")
        if not self._is_open(repo) and self.command.args[0] == "theta":  # git tears files of a full disk
            self.assert_whole_file(repo)

    def _go_on(self, repo: Repo, *, abort: bool) -> None:
        """Let theta and its user go on; all is sound, as before or as after, and nothing is left over."""
        self.recover(repo, abort=abort)
        if (
            View.of(repo.path).file not in (self.before.file, self.after.file)
            and self.before.file in self.files
        ):
            repo.theta("restore", FILE)  # what git tore is committed
        git_fsck(repo)
        looking.sound(repo.path, anew=self.deep)
        nothing_left(repo)
        found = View.of(repo.path).file
        if found not in (self.before.file, self.after.file):
            raise FaultError("lost" if found == "gone" else "wrong", f"the file is {found}")


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
        self.committed = files(origin)
        self.subjects: dict[str, Subject] = {}
        self.number = 0

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

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """Make a folder for one case, which is removed when all that works in it has ended."""
        self.number += 1
        made = self.place / f"case{self.number}"
        made.mkdir()
        with ended(self.faults, made):
            yield made


@contextlib.contextmanager
def ended(faults: Faults, folder: Path) -> Iterator[None]:
    """At the end of the block end all faults, wait for what works in a folder, and remove it."""
    try:
        yield
    finally:
        faults.off()
        wait_for_children(Repo(folder))
        shutil.rmtree(folder, ignore_errors=True)


def nothing_left(repo: Repo) -> None:
    """Assert that no temporaries or locks of theta are left over."""
    if left := left_by_theta(repo):
        raise FaultError("other", f"left over: {left}")


def git_fsck(repo: Repo, *options: str) -> None:
    """Assert that git finds nothing wrong, dangling objects aside."""
    with counted_as("lost"):
        fsck(repo, *options)


def never_a_bug(done: Done) -> None:
    """Assert that a command that failed says why, and that it is no bug."""
    with counted_as("other"):
        checks.never_a_bug(done)
    is_told = done.returncode <= 0 or (done.stdout + done.stderr).strip()
    if not is_told and os.path.basename(str(done.args[0])) == "theta" and done.args[1] not in _SILENT:
        raise FaultError("other", f"no reason: {describe(done)}")
