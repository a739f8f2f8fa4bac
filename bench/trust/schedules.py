"""Two to four commands of theta and git at once on one repository with two worktrees, against a model.

The model: a command that says it succeeded has done what it is for, one that fails says why; nothing that
was committed is lost, each commit has the file that was in its worktree, and afterwards everything works.
``git gc`` keeps what is younger than two weeks, as it does unless asked otherwise: with ``--prune=now`` git
itself does not allow others beside it.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

import theta
from bench.trust import looking
from bench.trust.outcome import FaultError, about
from bench.trust.subjects import OnRepositories, git_fsck, never_a_bug, nothing_left
from tests.reliability.harness import FILE, SHAPES, wait_for_children, write
from tests.reliability.killing import attempt, look, under_way
from tests.support import Repo, random_tensors
from tests.support.faults import SLOW
from tests.support.repos import Done, describe

_MAIN: Final = {
    "theta commit": ("theta", "commit", "-q", "-a", "-m", "by main"),
    "git commit": ("git", "commit", "-q", "-a", "-m", "by main"),
    "theta add": ("theta", "add", FILE),
    "git add": ("git", "add", FILE),
    "theta merge": ("theta", "merge", "--no-edit", "-q", "-X", "ours", "clash"),
    "theta fetch": ("theta", "fetch", "-q", "origin"),
    "git fetch": ("git", "fetch", "-q", "origin"),
    "theta push": ("theta", "push", "-q", "origin", "other:refs/heads/pushed"),
    "git push": ("git", "push", "-q", "origin", "main:refs/heads/by-git"),
}
_SIDE: Final = {
    "theta commit": ("theta", "commit", "-q", "-a", "-m", "by side"),
    "git commit": ("git", "commit", "-q", "-a", "-m", "by side"),
    "theta add": ("theta", "add", FILE),
    "theta stash": ("theta", "stash", "-q"),
}
_ANY: Final = {
    "theta gc": ("theta", "gc", "-q"),
    "git gc": ("git", "gc", "-q"),
    "git repack": ("git", "repack", "-a", "-d", "-q"),
    "git pack-refs": ("git", "pack-refs", "--all"),
    "theta status": ("theta", "status"),
    "theta fsck": ("theta", "fsck", "--read-data"),
    "git branch": ("git", "branch", "new", "main~"),
    "theta tag": ("theta", "tag", "v1", "other"),
    "git worktree": ("git", "worktree", "add", "-q", "../third", "clash"),
}
_PLACES: Final = {"main": _MAIN, "side": _SIDE}


@dataclass(frozen=True)
class Actor:
    """A command, the worktree that it runs in, and the seconds after which it starts."""

    place: str
    args: tuple[str, ...]
    after: float

    def run(self, repo: Repo) -> Done:
        """Run the command, which may fail."""
        time.sleep(self.after)
        return attempt(repo, self.args)

    def __str__(self) -> str:
        return f"{self.place}: {' '.join(self.args)}"


class Schedules(OnRepositories):
    """Commands at once."""

    name = "schedules"
    title = "Two to four commands of theta and git at once, in two worktrees of one repository"
    counts = "schedules"
    each = 2

    def case(self, seed: int, number: int) -> str:
        """Run some commands at once, and compare what comes of them with the model."""
        dice = random.Random(f"schedules {seed} {number}")
        actors = _drawn(dice)
        with self.folder() as folder, about("; ".join(map(str, actors))):
            self._play(folder, actors, dice)
        return f"{len(actors)} at once"

    def _play(self, folder: Path, actors: list[Actor], dice: random.Random) -> None:
        repos = {"main": self.origin.copy(folder / "main")}
        repos["main"].git("worktree", "add", "-q", "../side", "other")
        repos["side"] = Repo(folder / "side", repos["main"].ticks)
        for place, repo in repos.items():
            write(repo, _changes(place))
        self.faults.set(SLOW, seed=dice.getrandbits(32))
        with ThreadPoolExecutor(len(actors)) as pool:
            own = [Repo(repos[actor.place].path, 1000 * at) for at, actor in enumerate(actors, 1)]
            done = list(pool.map(lambda pair: pair[0].run(pair[1]), zip(actors, own, strict=True)))
        wait_for_children(Repo(folder))
        self.faults.off()
        for actor, one in zip(actors, done, strict=True):
            never_a_bug(one)
            if one.returncode < 0:
                raise FaultError("other", describe(one))
            if one.returncode == 0 and "commit" in actor.args:
                _assert_committed(repos[actor.place], actor.place)
            if one.returncode and actor.args[1] in ("status", "fsck"):
                raise FaultError("wrong", f"a reader failed: {describe(one)}")
        self._check(repos)

    def _check(self, repos: dict[str, Repo]) -> None:
        """All is sound; the next commands just work, and leave nothing."""
        main = repos["main"]
        looking.sound(main.path)
        looking.walk(main.path / ".git" / "remote.git")
        git_fsck(main)
        for place, repo in repos.items():
            repo.ticks += 100_000
            look(repo)
            if name := under_way(repo):
                repo.theta(name, "--abort")
            write(repo, {"norm": 77})
            repo.theta("commit", "-q", "-a", "-m", f"last of {place}")
            _assert_file(repo, "HEAD", {"norm": 77})
        nothing_left(main)


def _drawn(dice: random.Random) -> list[Actor]:
    """Return two to four commands: at least one that writes in each worktree, the others anywhere."""
    found = []
    for place in ("main", "side"):
        found.append((place, dice.choice([*_PLACES[place].values()])))
    for _ in range(dice.randint(0, 2)):
        place = dice.choice(("main", "side"))
        more = [*_ANY.values(), *(_PLACES[place].values() if dice.random() < 0.3 else ())]
        args = dice.choice(more)
        # Two gits that add one worktree at once leave half of one, without theta too (10 of 150 pairs).
        if args != _ANY["git worktree"] or args not in (of for _, of in found):
            found.append((place, args))
    return [Actor(place, args, dice.choice((0.0, 0.0, dice.uniform(0, 0.15)))) for place, args in found]


def _changes(place: str) -> dict[str, int]:
    return {"emb": 5, "layers.1.w": 2} if place == "main" else {"emb": 6, "layers.0.w": 1}


def _assert_committed(repo: Repo, place: str) -> None:
    """A commit of the worktree's file is on its branch."""
    found = repo.git("log", "--format=%H %s", "-20").split("\n")
    commits = [line.split(" ", 1)[0] for line in found if line.endswith(f"by {place}")]
    if not commits:
        raise FaultError("lost", f"the commit of {place} is not on its branch: {found}")
    _assert_file(repo, commits[-1], _changes(place))


def _assert_file(repo: Repo, commit: str, changes: dict[str, int]) -> None:
    """The checkpoint of a commit has these values, all others as anywhere."""
    with theta.open(repo.path) as opened:
        found = opened.load(repo.git("rev-parse", commit), FILE)
    wanted = random_tensors(SHAPES)
    for name, seed in changes.items():
        wanted[name] = random_tensors({name: SHAPES[name]}, seed)[name]
    wrong = [name for name, value in wanted.items() if not np.array_equal(found[name], value)]
    if wrong:
        raise FaultError("wrong", f"{commit} has other values of {wrong}")
