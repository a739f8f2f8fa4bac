"""Random histories, driven by theta on a checkpoint and by plain git on a text of the same values.

The text is the oracle: a line for each tensor, far enough from its neighbours that git's own merge
of lines is the rule for tensors.  Both repositories run the same commands; after each of them they
must have the same values, the same commits in the same order, and the same conflicts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from tests.compat.inprocess import theta
from tests.support import Repo, make_model, read_model
from theta.porcelain.workspace import closures
from theta.porcelain.workspace.session import Session

MODEL: Final = "model.safetensors"
TEXT: Final = "model.txt"
NAMES: Final = [f"layers.{number}.weight" for number in range(4)] + ["head.weight", "norm"]
PADDING: Final = 6
BRANCHES: Final = ("main", "one", "two")

Model = dict[str, int]


def as_text(model: Model) -> str:
    """Every name that may be, in order, so that additions and deletions are changes of one line."""
    gap = [f"{name} {number}" for name in NAMES for number in range(PADDING)]
    rows = [
        [f"{name} = {model.get(name, 'absent')}", *gap[at * PADDING :][:PADDING]]
        for at, name in enumerate(NAMES)
    ]
    return "\n".join(line for row in rows for line in row) + "\n"


def from_text(text: str) -> Model:
    found = re.findall(r"^(\S+) = (\d+)$", text, re.MULTILINE)
    return {name: int(value) for name, value in found}


def as_arrays(model: Model) -> dict[str, np.ndarray]:
    """A value is a number, spread by a little so that deltas have something to do."""
    ramp = np.arange(24, dtype=np.float32).reshape(4, 6) / 64
    return {name: ramp + np.float32(model[name]) for name in NAMES if name in model}


@dataclass
class Pair:
    """The repository of theta and its twin of text."""

    repo: Repo
    twin: Repo
    dice: random.Random
    step: int = 0

    # -- the two states ------------------------------------------------------------------

    def model(self) -> Model:
        return from_text((self.twin.path / TEXT).read_text())

    def write(self, model: Model) -> None:
        make_model(self.repo.path / MODEL, as_arrays(model))
        self.twin.write(TEXT, as_text(model))

    def check(self) -> None:
        """Same values, same commits, nothing left to commit, ``.theta/`` in agreement."""
        found = {name: value[0, 0] for name, value in read_model(self.repo.path / MODEL).items()}
        assert found == self.model()
        assert self.log(self.repo) == self.log(self.twin)
        assert self.repo.git("status", "--porcelain") == ""
        session = Session.here(self.repo.path)
        assert closures.agrees(session, session.repo.tree_of("HEAD"))

    def log(self, repo: Repo) -> list[str]:
        return repo.git("log", "--format=%s", "--topo-order").splitlines()

    def check_all(self) -> None:
        """Every commit of every branch holds what its twin holds."""
        session = Session.here(self.repo.path)
        for branch in BRANCHES:
            sides = (repo.git("rev-list", "--topo-order", branch).split() for repo in (self.repo, self.twin))
            for commit, other in zip(*sides, strict=True):
                tree = session.repo.tree_of(commit)
                assert closures.agrees(session, tree), commit
                if tree.get(MODEL) is not None:
                    manifest = session.manifest(session.at(commit)[MODEL].oid)
                    want = from_text(self.twin.git("show", f"{other}:{TEXT}"))
                    assert set(manifest.by_name) == set(want), commit
        self.repo.fsck()

    # -- running -------------------------------------------------------------------------

    def both(self, *args: str, same: bool = True) -> bool:
        """Run one command in both; return whether it succeeded."""
        ran = theta(self.repo, *args, code=None)
        done = self.twin.try_git(*args)
        assert ran.code != 70, ran
        if same:
            assert (ran.code == 0) == (done.returncode == 0), (args, ran, done.stdout + done.stderr)
        return done.returncode == 0

    def commit(self, *options: str) -> None:
        self.step += 1
        self.both("commit", "-q", "-a", "-m", f"step {self.step}", *options)

    # -- steps ---------------------------------------------------------------------------

    def edit(self) -> None:
        model = self.model()
        for name in self.dice.sample(NAMES, self.dice.choice((1, 1, 2))):
            if name in model and len(model) > 2 and self.dice.random() < 0.2:
                del model[name]
            else:
                model[name] = self.dice.randrange(1, 6)
        if model != self.model():
            self.write(model)
            self.commit()

    def amend(self) -> None:
        if len(self.log(self.twin)) > 2:
            model = self.model()
            model[self.dice.choice(NAMES)] = self.dice.randrange(1, 6)
            self.write(model)
            self.commit("--amend", "--allow-empty")

    def switch(self) -> None:
        self.both("switch", "-q", self.dice.choice(BRANCHES))

    def merge(self) -> None:
        self.step += 1
        other, side = self.dice.choice(BRANCHES), self.dice.choice(("", "ours", "theirs"))
        options = [f"-X{side}"] if side else []
        if not self.both("merge", "-q", "--no-edit", "-m", f"step {self.step}", *options, other):
            self.compare_conflicts()
            self.both("merge", "--abort")

    def rebase(self) -> None:
        """Every commit is applied: whether one was picked already, git guesses by the lines around it."""
        side = self.dice.choice(("", "ours", "theirs"))
        options = ["--reapply-cherry-picks", *([f"-X{side}"] if side else [])]
        if not self.both("rebase", "-q", *options, self.dice.choice(BRANCHES)):
            self.compare_conflicts()
            self.both("rebase", "--abort")

    def pick(self) -> None:
        self.apply("cherry-pick")

    def revert(self) -> None:
        self.apply("revert", "--no-edit")

    def apply(self, command: str, *options: str) -> None:
        """Apply or undo a commit of any branch (found by its message), or skip it."""
        branch = self.dice.choice(BRANCHES)
        commits = [
            repo.git("rev-list", "--topo-order", "--no-merges", branch).split()[:-2]
            for repo in (self.repo, self.twin)
        ]
        assert len(commits[0]) == len(commits[1])
        if not commits[0]:
            return
        at = self.dice.randrange(len(commits[0]))
        side = self.dice.choice(("", "ours", "theirs"))
        given = [*options, *([f"-X{side}"] if side else [])]
        ran = theta(self.repo, command, *given, commits[0][at], code=None)
        done = self.twin.try_git(command, *given, commits[1][at])
        assert (ran.code == 0) == (done.returncode == 0), (command, ran, done)
        if ran.code:
            self.compare_conflicts()
            self.both(command, self.dice.choice(("--abort", "--skip")))

    def gc(self) -> None:
        self.repo.git("gc", "-q", "--prune=now")

    def compare_conflicts(self) -> None:
        """If git stopped on lines, theta stopped on the tensors of those lines."""
        text = (self.twin.path / TEXT).read_text()
        want = set()
        for block in re.findall(r"^<<<<<<<.*?^>>>>>>>", text, re.MULTILINE | re.DOTALL):
            want |= set(re.findall(r"^(\S+) = ", block, re.MULTILINE))
        from theta.porcelain.merge import resolving

        found = resolving.conflicts(Session.here(self.repo.path))
        assert {conflict.name for conflicts in found.values() for conflict in conflicts} == want


STEPS: Final = (
    *[Pair.edit] * 6,
    *[Pair.switch] * 4,
    *[Pair.merge] * 3,
    *[Pair.rebase] * 2,
    *[Pair.pick] * 2,
    *[Pair.revert] * 2,
    Pair.amend,
    Pair.gc,
)


def begin(place: Path, seed: int, settle: Callable[[Repo], object] = lambda _: None) -> Pair:
    """Both repositories, which ``settle`` gets when they are new, with a first model and three branches."""
    pair = Pair(Repo.create(place / "repo"), Repo.create(place / "twin"), random.Random(seed))
    settle(pair.repo)
    settle(pair.twin)
    theta(pair.repo, "track", "*.safetensors")
    pair.write(dict.fromkeys(NAMES, 0))
    pair.repo.git("add", ".gitattributes")
    theta(pair.repo, "add", ".")
    pair.twin.git("add", ".")
    pair.both("commit", "-q", "-m", "first")
    for branch in BRANCHES[1:]:
        pair.both("branch", branch)
    return pair


def live(place: Path, seed: int, steps: int, settle: Callable[[Repo], object] = lambda _: None) -> None:
    pair = begin(place, seed, settle)
    done = []
    try:
        for _ in range(steps):
            step = pair.dice.choice(STEPS)
            done.append(step.__name__)
            step(pair)
            pair.check()
        pair.check_all()
    except AssertionError as error:
        raise AssertionError(f"seed {seed} in {place}, after {' '.join(done)}: {error}") from error


@pytest.mark.parametrize("seed", range(2))
def test_a_random_history(tmp_path: Path, seed: int) -> None:
    live(tmp_path, seed, 14)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 140))
def test_many_random_histories(tmp_path: Path, seed: int) -> None:
    live(tmp_path, seed, 25)
