"""Kills a command at a moment, alone or with all that it started, and looks at what is left."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.harness import FILE, State, fsck, leftovers, wait_for_children, write
from tests.support import Repo, sha256
from tests.support.environment import dated
from tests.support.repos import Done, describe

GITS = re.compile(r"/tmp_(obj|pack|idx|object)_\w+$")  # of a dead git; its gc removes them
MAGIC = b"theta checkpoint"
_OPEN = ("rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "sequencer")


@dataclass(frozen=True)
class Seen:
    """A repository as its user sees it, with its stashes, its remote and what is known of that."""

    local: State
    stashes: int
    remote: str
    tracking: str

    @classmethod
    def of(cls, repo: Repo) -> Seen:
        """The state of ``repo`` and of the remote beside it."""
        remote = Repo(repo.path / ".git" / "remote.git")
        return cls(
            State.of(repo),
            len(repo.git("stash", "list").splitlines()),
            remote.git("for-each-ref", "--format=%(refname) %(tree)"),
            repo.git("for-each-ref", "--format=%(refname) %(tree)", "refs/remotes", "refs/heads"),
        )


Change = Callable[[Repo], object]


def _nothing(repo: Repo) -> None:
    pass


@dataclass(frozen=True)
class Command:
    """A command to kill.

    ``loose``: git itself does it in steps that a user sees, but loses nothing.
    ``stops``: it ends with conflicts.
    ``resumes``: it goes on when it is run again.
    """

    args: tuple[str, ...]
    before: Change = _nothing
    loose: bool = False
    stops: bool = False
    resumes: bool = False


def edited(repo: Repo) -> None:
    """Change two tensors in the worktree."""
    write(repo, {"layers.1.w": 2, "emb": 5})


def _stashed(repo: Repo) -> None:
    edited(repo)
    repo.theta("stash", "-q")


def _behind(repo: Repo) -> None:
    repo.git("update-ref", "refs/remotes/origin/upstream", "main~")


COMMANDS: dict[str, Command] = {
    "merge": Command(("theta", "merge", "other")),
    "merge average": Command(("theta", "merge", "clash", "-X", "average")),
    "merge by steps": Command(("theta", "merge", "--no-ff", "--no-prompt", "-s", "ort", "other")),
    "rebase": Command(("theta", "rebase", "other")),
    "cherry-pick": Command(("theta", "cherry-pick", "other")),
    "revert": Command(("theta", "revert", "--no-edit", "HEAD")),
    "switch": Command(("theta", "switch", "other")),
    "push": Command(("theta", "push", "origin", "main")),
    "fetch": Command(("theta", "fetch", "origin")),
    "pull": Command(("theta", "pull", "--no-rebase", "--no-edit", "origin", "upstream")),
    "stash": Command(("theta", "stash"), edited, loose=True),
    "stash pop": Command(("theta", "stash", "pop"), _stashed, loose=True),
    "commit": Command(("theta", "commit", "-a", "-m", "three"), edited),
    "git commit": Command(("git", "commit", "-q", "-a", "-m", "three"), edited),
    "git checkout": Command(("git", "checkout", "-q", "other"), loose=True),
    "git merge": Command(("git", "merge", "-q", "other"), loose=True),
    "git stash": Command(("git", "stash", "-q"), edited, loose=True),
}


def complete(repo: Repo) -> Repo:
    """``repo`` (the template of the harness) with a branch in conflict and a remote inside it."""
    repo.git("branch", "clash", "main~")
    repo.theta("switch", "clash")
    write(repo, {"layers.1.w": 3})
    repo.theta("commit", "-a", "-m", "clash")
    repo.theta("switch", "main")
    repo.git("init", "-q", "--bare", ".git/remote.git")
    repo.git("remote", "add", "origin", ".git/remote.git")
    repo.git("push", "-q", "origin", "main~:refs/heads/main", "other:refs/heads/upstream")
    repo.git("update-ref", "-d", "refs/remotes/origin/upstream")
    return repo


def attempt(repo: Repo, args: tuple[str, ...]) -> Done:
    """Run a whole command, which may fail."""
    return repo.run(*args) if args[0] == "git" else repo.theta(*args[1:], code=None)


def run(repo: Repo, args: tuple[str, ...]) -> None:
    """Run a whole command, which must succeed."""
    done = attempt(repo, args)
    assert done.returncode == 0, describe(done)


def kill(repo: Repo, args: tuple[str, ...], after: float, *, group: bool) -> bool:
    """Run a command and kill it, or its whole ``group``; returns whether it was still running."""
    if args[0] == "theta":
        env = {"THETA_TEST_KILL_AFTER": f"{after:.4f}", "THETA_TEST_KILL_GROUP": str(int(group))}
        return repo.theta(*args[1:], env=env, code=None).returncode == -9
    repo.ticks += 1
    null = subprocess.DEVNULL
    child = subprocess.Popen(
        args,
        cwd=repo.path,
        env=os.environ | dated(repo.ticks),
        stdin=null,
        stdout=null,
        stderr=null,
        start_new_session=True,
    )
    time.sleep(after)
    hit = child.poll() is None
    if hit:
        (os.killpg if group else os.kill)(child.pid, signal.SIGKILL)
    child.wait()
    return hit


class Copies:
    """One command on copies of one repository: what is before it, and after it when nothing happens."""

    def __init__(self, origin: Repo, command: Command, place: Path) -> None:
        self.origin, self.command, self.place = origin, command, place
        self.number = 0
        repo = self.fresh()
        self.old = Seen.of(repo)
        self.measure(repo)
        self.new = Seen.of(repo)
        self.files = {self.old.local.file, self.new.local.file, *files(self.origin)}

    def measure(self, repo: Repo) -> None:
        """Run the command where nothing happens to it."""
        run(repo, self.command.args)

    def fresh(self) -> Repo:
        """A new copy, prepared."""
        self.number += 1
        repo = self.origin.copy(self.place / f"copy{self.number}")
        self.command.before(repo)
        return repo

    def assert_whole_file(self, repo: Repo) -> None:
        """The file in the worktree is that of a commit, or a manifest."""
        path = repo.path / FILE
        if path.exists() and not path.read_bytes().startswith(MAGIC):
            assert State.of(repo).file in self.files, "the file is torn"

    def repeat(self, repo: Repo) -> None:
        """Unless ``repo`` is as after the command it is as before; the command then does its work."""
        now = Seen.of(repo)
        if now == self.new:
            return
        left = f"neither before nor after: {difference(now, self.old, self.new)} {now.local}"
        if not self.command.resumes:
            assert now.local.history == self.old.local.history, left
            assert now.local.file == self.old.local.file, left
        run(repo, self.command.args)
        now = Seen.of(repo)
        assert now == self.new, f"not as after: {difference(now, self.new)}"

    def assert_sound(self, repo: Repo) -> None:
        """Everything is whole and in agreement, and nothing is left over."""
        run(repo, ("theta", "fsck", "--read-data"))
        fsck(repo)
        assert not left_by_theta(repo), left_by_theta(repo)


class Trial(Copies):
    """A command that is killed."""

    def measure(self, repo: Repo) -> None:
        """Take the time of the command."""
        begun = time.monotonic()
        super().measure(repo)
        self.length = time.monotonic() - begun

    def kill(self, share: float, *, group: bool, abort: bool) -> bool:
        """Kill after ``share`` of the usual time, check what is left, go on or ``abort``, check again."""
        repo = self.fresh()
        hit = kill(repo, self.command.args, share * self.length, group=group)
        wait_for_children(repo)
        fsck(repo)
        self.check_left(repo)
        self.recover(repo, abort=abort)
        self.check_end(repo)
        return hit

    def check_left(self, repo: Repo) -> None:
        """Right after the kill: no branch is anywhere but before or after, and no file is torn."""
        branches = repo.git("for-each-ref", "--format=%(tree)", "refs/heads", "refs/remotes").split()
        known = f"{self.old.tracking} {self.new.tracking}".split()
        assert set(branches) <= set(known), "a branch is in between"
        self.assert_whole_file(repo)

    def recover(self, repo: Repo, *, abort: bool) -> None:
        """Do what a user does next: conclude or give up what is open, or repeat the command."""
        if self.command.args[0] == "git":  # git leaves its locks and asks to remove them
            for lock in (repo.path / ".git").rglob("*.lock"):
                lock.unlink()
            self.take_index(repo)
        look(repo, by_theta=self.command.args[0] == "theta")
        if name := under_way(repo):
            write_message(repo, name)
            self.conclude(repo, name, abort=abort or is_torn(repo))
        if self.command.args[0] == "git" and not (repo.path / FILE).exists():
            bring_back(repo)
        assert under_way(repo) == ""
        if not self.command.loose:
            self.repeat(repo)

    def take_index(self, repo: Repo) -> None:
        """Do what a user of git does where it died between HEAD and the index, whose lock is gone now."""
        now = Seen.of(repo).local
        if (now.history, now.index) == (self.new.local.history, self.old.local.index):
            run(repo, ("theta", "reset", "-q"))

    def conclude(self, repo: Repo, name: str, *, abort: bool) -> None:
        """Give up what is open, or continue; a step that is committed already is skipped, as git advises."""
        done = attempt(repo, ("theta", name, "--abort" if abort else "--continue"))
        if done.returncode and f"use 'git {name} --skip'" in done.stdout + done.stderr:
            done = attempt(repo, ("theta", name, "--skip"))
        assert done.returncode == 0, describe(done)

    def check_end(self, repo: Repo) -> None:
        """All is sound, and the file is there as it was before or is after."""
        self.assert_sound(repo)
        assert not (repo.path / ".git/theta/MERGE_HEAD").exists(), "MERGE_HEAD is put aside"
        path = repo.path / FILE
        assert not path.read_bytes().startswith(MAGIC), "the manifest lies in the worktree"
        assert State.of(repo).file in (self.old.local.file, self.new.local.file)


@functools.cache
def files(repo: Repo) -> set[str]:
    """The digests of the file in the commits of ``repo``, which a rebase passes through."""
    found = set()
    for place in ("main", "main~", "other", "clash"):
        repo.theta("export", f"{place}:{FILE}", "-o", ".git/exported.safetensors", "--force", code=None)
        found.add(sha256(repo.path / ".git" / "exported.safetensors"))
    return found


def left_by_theta(repo: Repo) -> list[str]:
    """Return the leftovers, without those that git's own gc removes."""
    return [name for name in leftovers(repo) if not GITS.search(name)]


def look(repo: Repo, *, by_theta: bool = False) -> None:
    """Do what a user does first: ``theta status``, and what it says of files that are not filled in.

    Files of a command of theta are filled in by then.
    """
    done = repo.theta("status")
    path = repo.path / FILE
    if path.exists() and path.read_bytes().startswith(MAGIC):
        assert under_way(repo) or not by_theta, describe(done)
        told = f"'theta restore {FILE}' writes the checkpoint" in done.stdout
        assert told or under_way(repo), describe(done)
        if not under_way(repo):
            repo.theta("restore", FILE)


def bring_back(repo: Repo) -> None:
    """Restore a file that is gone, as a user does: git removes a file before it writes it anew."""
    assert re.search(rf"deleted: +{re.escape(FILE)}", repo.theta("status").stdout)
    repo.theta("restore", FILE)


def under_way(repo: Repo) -> str:
    """The command that something is left of."""
    names = {"MERGE_HEAD": "merge", "CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert"}
    for sign in _OPEN:
        if (repo.path / ".git" / sign).exists():
            return names.get(sign, "rebase" if sign.startswith("rebase") else "cherry-pick")
    return ""


def is_torn(repo: Repo) -> bool:
    """Return whether git was stopped before it wrote which commit is merged: that merge has to begin anew."""
    heads = repo.path / ".git" / "MERGE_HEAD"
    return heads.exists() and not heads.stat().st_size


def write_message(repo: Repo, name: str) -> None:
    """Write the message of command ``name`` anew, as a user does, if git was stopped before it had."""
    message = repo.path / ".git" / "MERGE_MSG"
    if not message.read_bytes().strip() if message.exists() else name == "merge":
        message.write_text("written again\n")


def difference(now: Seen, *wanted: Seen) -> str:
    """Return the parts in which ``now`` differs from each of ``wanted``."""
    rows = []
    for other in wanted:
        for part in ("stashes", "remote", "tracking"):
            if getattr(now, part) != getattr(other, part):
                rows.append(f"{part}: {getattr(now, part)} for {getattr(other, part)}")
        for part in ("branch", "history", "index", "file"):
            if getattr(now.local, part) != getattr(other.local, part):
                rows.append(part)
        rows.append("|")
    return " ".join(rows)
