"""Clocks that jump, files with times of the past and the future: a changed file is never taken for unchanged.

The library of faults shifts the clock of theta, git and all that they start.  The times of files
are those of the system, or whatever a program gave them.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.trust import looking
from bench.trust.outcome import FaultError, about, counted_as
from bench.trust.subjects import OnRepositories, git_fsck, never_a_bug, nothing_left
from tests.reliability.harness import FILE, SHAPES, wait_for_children
from tests.reliability.killing import attempt
from tests.support import Repo, make_model, random_tensors, sha256
from tests.support.repos import Done, describe

_DAY: Final = 86_400
_YEAR: Final = 365 * _DAY
_JUMPS: Final = (
    0,
    1,
    -1,
    2,
    -2,
    60,
    -3600,
    _DAY,
    -15 * _DAY,
    15 * _DAY,
    _YEAR,
    -_YEAR,
    30 * _YEAR,
    -30 * _YEAR,
)
"""Seconds by which a clock is wrong."""
_MOMENTS: Final = (0.0, 1.0, 2.0**31 - 1, 2.0**31 + 1, 2.0**32 - 1, 4.2e9)
"""Times of files that programs give them: the beginning and the ends of numbers of seconds."""


@dataclass
class World:
    """A repository, and what its commit, its index and its file are to have, by their digests."""

    repo: Repo
    head: str
    index: str

    @property
    def path(self) -> Path:
        """The checkpoint."""
        return self.repo.path / FILE

    @property
    def file(self) -> str:
        """The digest of its bytes now."""
        return sha256(self.path)

    def run(self, *words: str) -> Done:
        """Run a command, which may fail, and must say why."""
        done = attempt(self.repo, words)
        never_a_bug(done)
        return done

    def must(self, *words: str) -> None:
        """Run a command that must succeed."""
        done = self.run(*words)
        if done.returncode:
            raise FaultError("other", describe(done))


def _edit(world: World, dice: random.Random) -> None:
    """Write the file, or not: with the same bytes, others of the same length, or more of them."""
    kind = dice.choice(("none", "same", "values", "values", "values", "more"))
    if kind == "none":
        return
    before = world.path.stat()
    draft = world.path.with_name("draft.tmp")
    data = world.path.read_bytes() if kind == "same" else _content(draft, dice, more=kind == "more")
    if dice.random() < 0.6:
        with world.path.open("r+b") as file:
            file.write(data)
            file.truncate()
    else:
        draft.write_bytes(data)
        draft.replace(world.path)
    _date(world, before, dice)


def _content(draft: Path, dice: random.Random, *, more: bool) -> bytes:
    tensors = random_tensors(SHAPES) | random_tensors({"emb": SHAPES["emb"]}, dice.randrange(1, 1000))
    tensors |= random_tensors({"more": (dice.randint(1, 9), 16)}) if more else {}
    data = make_model(draft, tensors).read_bytes()
    draft.unlink()
    return data


def _date(world: World, before: os.stat_result, dice: random.Random) -> None:
    """Give the file the time that it had, that of the index, or any other."""
    index = (world.repo.path / ".git/index").stat().st_mtime_ns
    moments = (before.st_mtime_ns, index, *(int(moment * 1e9) for moment in _MOMENTS))
    moments += (before.st_mtime_ns + 10**9 * dice.choice(_JUMPS), 0)
    if dice.random() < 0.7:
        moment = dice.choice(moments)
        os.utime(world.path, ns=(moment, moment))
        while int(world.path.stat().st_ctime) == int(before.st_ctime):
            # Git compares whole seconds, and cannot see what keeps size and times within one (racy-git.txt).
            time.sleep(1.01 - time.time() % 1)
            os.utime(world.path, ns=(moment, moment))


def _add(world: World, program: str, _: random.Random) -> None:
    world.must(program, "add", FILE)
    world.index = world.file


def _commit(world: World, program: str, _: random.Random) -> None:
    wanted = world.file
    done = world.run(program, "commit", "-q", "-a", "-m", "more")
    if (done.returncode == 0) != (wanted != world.head):
        raise FaultError(
            "wrong", f"the file {'has' if wanted != world.head else 'has no'} change: {describe(done)}"
        )
    world.head = world.index = wanted


def _restore(world: World, _program: str, _: random.Random) -> None:
    world.must("theta", "restore", FILE)
    if world.file != world.index:
        raise FaultError("wrong", "the file is not as it is staged")


def _stash(world: World, program: str, _: random.Random) -> None:
    file = world.file
    is_clean = {file, world.index} == {world.head}
    world.must(program, "stash", "-q")
    if world.file != world.head:
        raise FaultError("wrong", "the file is not as it is committed")
    if not is_clean:
        world.must("theta", "stash", "pop", "-q")
        world.index = world.head
    if world.file != file:
        raise FaultError("lost", "the file is not as it was stashed")


def _switch(world: World, program: str, _: random.Random) -> None:
    """Go to another branch and back: only a file without a change is replaced."""
    file = world.file
    is_clean = {file, world.index} == {world.head}
    done = world.run(program, "switch", "-q", "clash")
    if is_clean and done.returncode:
        raise FaultError("other", describe(done))
    if done.returncode == 0:
        if not is_clean:
            raise FaultError("lost", f"a change was replaced: {describe(done)}")
        world.must("theta", "switch", "-q", "main")
    if world.file != file:
        raise FaultError("wrong", "the file is not as it was before")


def _gc(world: World, program: str, _: random.Random) -> None:
    world.must(program, "gc", "-q")


def _look(world: World, _program: str, _: random.Random) -> None:
    """Look alone, which comes after each step."""


_STEPS: Final[tuple[Callable[[World, str, random.Random], None], ...]] = (
    *(_add, _commit, _commit, _restore, _stash, _switch, _gc, _look, _look),
)


class Clocks(OnRepositories):
    """Commands between which the clock jumps."""

    name = "clocks"
    title = "Clocks that jump by seconds to decades, and files with times of the past and the future"
    counts = "histories"
    each = 5

    def case(self, seed: int, number: int) -> str:
        """Take some steps, each at another time."""
        dice = random.Random(f"clocks {seed} {number}")
        with self.folder() as folder:
            repo = self.origin.copy(folder / "repo")
            world = World(repo, sha256(repo.path / FILE), sha256(repo.path / FILE))
            try:
                for _ in range(dice.randint(3, 6)):
                    self._step(world, dice)
            finally:
                self._jump(0)
            wait_for_children(repo)
            looking.sound(repo.path, anew=False)
            git_fsck(repo)
            nothing_left(repo)
        return "steps"

    def _step(self, world: World, dice: random.Random) -> None:
        step, shift = dice.choice(_STEPS), dice.choice(_JUMPS)
        program = dice.choice(("theta", "theta", "git"))
        _edit(world, dice)
        self._jump(shift)
        with about(f"{program} {step.__name__} with the clock {shift} s off"):
            step(world, program, dice)
            _assert_told(world)

    def _jump(self, seconds: int) -> None:
        """Set the clock."""
        self.faults.shift = seconds
        self.faults.off()


def _assert_told(world: World) -> None:
    """Both programs say whether the file is as it is staged, and whether that is as it is committed."""
    wanted = f"{'M' if world.index != world.head else ' '}{'M' if world.file != world.index else ' '}"
    for program in ("theta", "git"):
        done = world.run(program, "status", "--porcelain")
        lines = [line for line in done.stdout.split("\n") if line.endswith(FILE)]
        found = lines[0][:2] if lines else "  "
        if done.returncode or found != wanted:
            raise FaultError("wrong", f"{found!r} for {wanted!r}: {describe(done)}")
    with counted_as("wrong"):
        told = world.run("theta", "export", f"HEAD:{FILE}", "-o", ".git/read.safetensors", "--force")
        assert told.returncode == 0, describe(told)
        assert sha256(world.repo.path / ".git/read.safetensors") == world.head, "the commit has another file"
