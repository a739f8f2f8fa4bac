"""Power that fails while a command works: writes that were not synced are lost, torn or reordered.

The writes, syncs and changes of names of a command are recorded once, with those of all processes that it
starts.  Each case is another state of the disk that :mod:`bench.trust.crash_states` allows.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.trust import looking
from bench.trust.crash_states import Disk, Stage
from bench.trust.looking import View
from bench.trust.outcome import NO_CASE, FaultError, about
from bench.trust.subjects import WRITING, OnRepositories, git_fsck
from tests.reliability.harness import FILE, wait_for_children
from tests.reliability.killing import Command, bring_back, look, run, under_way
from tests.support import Repo, sha256
from tests.support.faults import Faults

_DEEP = 40
"""One in so many states is also checked by ``git fsck``, and theta goes on from there."""


@dataclass
class Recording:
    """A command that was recorded.

    Attributes:
        disk: what was before it, and what it did.
        stage: the folder that becomes the states.
        old: the repository before it.
        new: the repository after it.
        names: what the record changes.
        seen: digests of the states that were checked.
    """

    disk: Disk
    stage: Stage
    old: View
    new: View
    names: list[str]
    seen: set[bytes]


class Power(OnRepositories):
    """States of the disk after the power failed."""

    name = "power"
    title = "Power failures: different states of the disk, with unsynced writes lost, torn and reordered"
    counts = "states"
    each = 100

    def use(self, origin: Repo, place: Path, faults: Faults) -> None:
        """Take copies of ``origin``."""
        super().use(origin, place, faults)
        self.made: dict[str, Recording] = {}

    def case(self, seed: int, number: int) -> str:
        """Check one state; the seed says of which command."""
        name, dice = self.names[seed % len(self.names)], random.Random(f"power {seed} {number}")
        if name not in self.made:
            self.made[name] = self._record(WRITING[name], self.place / name.replace(" ", "-"))
        made = self.made[name]
        crash = dice.randint(1, len(made.disk.record))
        tree = made.disk.after(crash, dice)
        digest = tree.digest(made.names)
        if digest in made.seen:
            return NO_CASE
        made.seen.add(digest)
        made.stage.become(tree)
        with about(f"{name}, before step {crash} of {len(made.disk.record)}"):
            self._check(made, WRITING[name], dice)
        return name

    def _record(self, command: Command, place: Path) -> Recording:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        repo = self.origin.copy(place / "repo")
        repo.theta("status")
        command.before(repo)
        before = place / "before"
        shutil.copytree(repo.path, before, symlinks=True)
        inodes = {
            str(file.relative_to(repo.path)): file.lstat().st_ino
            for file in repo.path.rglob("*")
            if file.is_file() and not file.is_symlink()
        }
        with self.faults.recording() as record:
            run(repo, command.args)
            wait_for_children(repo)
        disk = Disk(repo.path, before, record, inodes)
        new = View.of(repo.path)
        shutil.rmtree(repo.path)
        shutil.copytree(before, repo.path, symlinks=True)
        old = View.of(repo.path)
        stage = Stage(repo.path, disk)
        return Recording(disk, stage, old, new, disk.changed(), set())

    def _check(self, made: Recording, command: Command, dice: random.Random) -> None:
        """Nothing is lost, each branch is where it was or will be, and the file is whole or comes back."""
        top = made.stage.top
        try:
            now = View.of(top)
        except Exception as error:
            raise FaultError("lost", f"the repository cannot be read: {error}") from error
        if not command.loose and (between := {*now.refs} - {*made.old.refs} - {*made.new.refs}):
            raise FaultError("wrong", f"a branch is in between: {between}")
        kept = {name for name, _ in made.old.refs} & {name for name, _ in made.new.refs}
        if gone := kept - {name for name, _ in now.refs}:
            raise FaultError("lost", f"a branch is gone: {gone}")
        looking.sound(top)
        is_whole = now.file in {made.old.file, made.new.file}
        only = {made.old.file, made.new.file} if "pop" in command.args else {made.old.file}
        precious = only - {*self.committed, "gone"}
        if not is_whole and precious and "refs/stash" not in dict(now.refs):
            raise FaultError("lost", "what was not committed is in no stash, and gone from the file")
        if dice.randrange(_DEEP if is_whole else _DEEP // 4) == 0:
            self._go_on(Repo(top, 10_000), made, command)

    def _go_on(self, repo: Repo, made: Recording, command: Command) -> None:
        """Do what a user does next: look, conclude or give up what is open, bring the file back."""
        if command.args[0] == "git":  # git leaves its locks, and asks to remove them
            for lock in (repo.path / ".git").rglob("*.lock"):
                lock.unlink()
        git_fsck(repo, "--no-reflogs")  # git appends to them and syncs nothing
        look(repo)
        if (name := under_way(repo)) and repo.theta(name, "--abort", code=None).returncode:
            repo.theta("reset", "--hard", "HEAD")  # git does not sync what it writes to the worktree
        path = repo.path / FILE
        if not path.exists() and made.new.file != "gone":
            bring_back(repo)
        if path.exists() and sha256(path) not in {made.old.file, made.new.file, *self.committed}:
            if not repo.theta("status", "--porcelain").stdout.strip():
                raise FaultError("wrong", "the file is torn, and status does not say so")
            repo.theta("restore", FILE)
        looking.sound(repo.path)
