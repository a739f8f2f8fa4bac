"""Random merges by ``git merge-tree``, as a server does them, and by theta, against an independent rule."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pygit2
import pytest

from tests.merging.histories import (
    ConflictError,
    Dice,
    History,
    Rule,
    Tensor,
    World,
    base_world,
    edited,
    expected,
    three_way,
)
from tests.support import read_model
from theta.merging.strategies import Policy, Strategy
from theta.porcelain.merge import in_memory
from theta.porcelain.merge.joining import How
from theta.store.format import manifest as manifests
from theta.store.format.manifest import Manifest
from theta.store.odb.packs import PackWriter
from theta.store.read.reassembly import Restorer
from theta.store.read.stored_tensor import StoredTensor

BATCH = 50
LEAVE: Policy = lambda conflict: None  # noqa: E731


@dataclass
class Case:
    """One merge to be: three worlds and their commits."""

    seed: int
    worlds: tuple[World, World, World]
    commits: tuple[str, str, str]


def cases(history: History, seeds: range) -> list[Case]:
    """A merge for each seed; all in two packs, since the sides are coded against the base."""
    dices = {seed: Dice(random.Random(seed)) for seed in seeds}
    roots = {}
    with packed(history) as pack:
        for seed, dice in dices.items():
            roots[seed] = history.commit(pack, base_world(dice), [], {})
    found = []
    with packed(history) as pack:
        for seed, dice in dices.items():
            root, base = roots[seed]
            one, ours = history.commit(pack, edited(dice, base, "ours"), [root], base)
            two, theirs = history.commit(pack, edited(dice, base, "theirs"), [root], base)
            found.append(Case(seed, (base, ours, theirs), (root, one, two)))
    return found


@contextlib.contextmanager
def packed(history: History) -> Iterator[PackWriter]:
    """A pack for what is written inside."""
    with history.session.objects.writing() as pack:
        yield pack


# -- what a tree holds, read without the code that wrote it ---------------------------------


def split(text: str) -> dict[str, tuple[str, str]]:
    """Name (as it is escaped) -> digest and tree, of a manifest; it must be well formed."""
    rows = text.removesuffix("\n").split("\n")
    assert rows[0] == "theta checkpoint 1"
    assert [row.split(" ")[0] for row in rows[1:4]] == ["format", "store", "skeleton"]
    found: dict[str, tuple[str, str]] = {}
    for at in range(4, len(rows), 3):
        name, value, end = rows[at : at + 3]
        match = re.fullmatch(r"    \w+ \[[\d, ]*\] sha256:(\w{64}) (\w{40})", value)
        assert match
        assert end == f"end {name}"
        assert name not in found, f"{name} stands twice"
        found[name] = (match[1], match[2])
    return found


@dataclass
class Tree:
    """A merged tree taken apart."""

    manifests: dict[str, bytes]
    stored: dict[str, str]
    """Path below ``.theta/`` -> id, of every directory."""

    def check_agreement(self) -> None:
        """All that the manifests name is below ``.theta/``, and each tensor there has an owner."""
        named: set[str] = set()
        for path, data in self.manifests.items():
            text = data.decode()
            trees = {tree for _, tree in split(text).values()}
            skeleton = text.split("\n")[3].removeprefix("skeleton ")
            store = text.split("\n")[2].removeprefix("store ")
            here = {oid for place, oid in self.stored.items() if place.startswith(store + "/")}
            assert trees | {skeleton} <= here, f"{path}: .theta/ lacks what the manifest names"
            named |= trees | {skeleton}
        leaves = {oid for place, oid in self.stored.items() if self.is_leaf(place)}
        assert leaves <= named, f".theta/ holds {leaves - named}, which no manifest names"

    def is_leaf(self, place: str) -> bool:
        return not any(other.startswith(place + "/") for other in self.stored)


def take_apart(repo: pygit2.Repository, oid: str) -> Tree:
    found = Tree({}, {})

    def walk(tree: pygit2.Tree, prefix: str) -> None:
        for entry in tree:
            path = f"{prefix}{entry.name}"
            if isinstance(entry, pygit2.Tree):
                if path.startswith(".theta/"):
                    found.stored[path.removeprefix(".theta/")] = str(entry.id)
                walk(entry, path + "/")
            elif path.endswith(".safetensors") and isinstance(entry, pygit2.Blob):
                found.manifests[path] = entry.data

    tree = repo[oid]
    assert isinstance(tree, pygit2.Tree)
    walk(tree, "")
    return found


class Values:
    """Reads restored tensors; those of one tree are read once."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.known: dict[tuple[str, str], Tensor] = {}

    def of(self, data: bytes) -> dict[str, Tensor]:
        """The tensors of a manifest, one by one from the store."""
        objects, found = self.history.session.objects, {}
        for line in manifests.parse(data).lines:
            key = (line.tree, line.digest)
            if key not in self.known:
                kind = {"f32": "<f4", "f16": "<f2", "i64": "<i8", "u8": "|u1"}[line.dtype]
                self.known[key] = (kind, line.shape, b"".join(StoredTensor(objects, line).chunks()))
            found[line.name] = self.known[key]
        return found

    def of_file(self, manifest: Manifest, scratch: Path) -> dict[str, Tensor]:
        """The tensors of the whole restored file."""
        scratch.write_bytes(bytes(Restorer(self.history.session.objects, manifest).data()))
        return {
            n: (array.dtype.str, array.shape, array.tobytes()) for n, array in read_model(scratch).items()
        }


# -- git, as a server -------------------------------------------------------------------------


def git_merge(bare: Path, objects: Path, ours: str, theirs: str) -> str | None:
    """Return the tree of git's clean merge; None when git sees conflicts."""
    command = ["git", "merge-tree", "--write-tree", ours, theirs]
    environment = os.environ | {"GIT_OBJECT_DIRECTORY": str(objects)}
    done = subprocess.run(command, cwd=bare, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.split("\n")[0] if done.returncode == 0 else None


def check_git(history: History, bare: Path, case: Case, values: Values, seen: Counter[str]) -> None:
    objects = history.session.repo.commondir / "objects"
    tree = git_merge(bare, objects, *case.commits[1:])
    wanted = expected(*case.worlds)
    if tree is None:
        seen["git: conflict" if wanted.conflict else "git: needless conflict"] += 1
        return
    assert not wanted.conflict, "git merged what both sides changed"
    seen["git: clean"] += 1
    parts = take_apart(pygit2.Repository(str(history.path)), tree)
    assert {path: values.of(data) for path, data in parts.manifests.items()} == wanted.files
    parts.check_agreement()


# -- theta ------------------------------------------------------------------------------------


def take(side: int) -> Rule:
    return lambda name, *sides: sides[side]


def mean(name: str, base: Tensor | None, ours: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    if ours is None or theirs is None or ours[:2] != theirs[:2] or ours[0] not in ("<f4", "<f2"):
        raise ConflictError
    left, right = (np.frombuffer(side[2], side[0]).astype("<f8") for side in (ours, theirs))
    return ours[0], ours[1], (left / 2 + right / 2).astype(ours[0]).tobytes()


RULES: dict[str, Rule] = {"base": take(0), "ours": take(1), "theirs": take(2), "average": mean}


def by(name: str) -> Policy:
    strategy = Strategy(name)
    return lambda conflict: strategy if strategy.applies(conflict) else None


def check_theta(history: History, case: Case, how: str, values: Values, seen: Counter[str]) -> None:
    policy, rule = (by(how), RULES[how]) if how in RULES else (LEAVE, None)
    _, ours, theirs = case.commits
    joined = in_memory.join(history.session, ours, theirs, How(policy))
    wanted = expected(*case.worlds, rule)
    wanted.conflict |= how not in ("base", "ours", "theirs") and metadata_conflict(case)
    if not joined.clean:
        seen[f"{how}: conflict" if wanted.conflict else f"{how}: needless conflict"] += 1
        assert wanted.conflict or wanted.structural, (
            f"a needless conflict: {joined.merged.conflicts} {joined.open_files}"
        )
        return
    assert not wanted.conflict, "theta merged what both sides changed, unasked"
    seen[f"{how}: clean"] += 1
    tree = in_memory.result_tree(history.session, joined.tree, joined.merged)
    parts = take_apart(pygit2.Repository(str(history.path)), tree)
    assert {path: values.of(data) for path, data in parts.manifests.items()} == wanted.files
    scratch = history.path.parent / "restored"
    for path, data in parts.manifests.items():
        assert values.of_file(manifests.parse(data), scratch) == wanted.files[path]
    parts.check_agreement()


def metadata_conflict(case: Case) -> bool:
    """Return whether both sides set one key of a file's metadata to different values."""
    for key in case.worlds[1].keys() & case.worlds[2].keys():
        sides = [dict(world[key].metadata) if key in world else {} for world in case.worlds]
        for name in set().union(*sides):
            try:
                three_way(*(side.get(name) for side in sides))
            except ConflictError:
                return True
    return False


def run(place: Path, seeds: range) -> Counter[str]:
    """Merge each seed by git and by theta, with conflicts left and with one way to settle them."""
    seen: Counter[str] = Counter()
    bare = place / "server.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(bare)], check=True)
    for start in range(seeds.start, seeds.stop, BATCH):
        history = History(place / f"{start}")
        values = Values(history)
        for case in cases(history, range(start, min(start + BATCH, seeds.stop))):
            try:
                check_git(history, bare, case, values, seen)
                check_theta(history, case, "leave", values, seen)
                check_theta(history, case, list(RULES)[case.seed % len(RULES)], values, seen)
            except AssertionError as error:
                raise AssertionError(
                    f"seed {case.seed} in {history.path}: {case.commits}: {error}"
                ) from error
    return seen


@pytest.mark.parametrize(
    "start", [0, *(pytest.param(seed, marks=pytest.mark.campaign) for seed in (100, 200, 300, 400))]
)
def test_merges_are_right_or_conflicts(tmp_path: Path, start: int) -> None:
    seen = run(tmp_path, range(start, start + 100))
    # The histories must reach every outcome, else the test proves little.
    assert (
        min(seen["git: clean"], seen["git: conflict"], seen["leave: clean"], seen["leave: conflict"]) > 5
    ), seen
    assert all(seen[f"{how}: clean"] > 2 for how in RULES), seen


@pytest.mark.campaign
@pytest.mark.parametrize("start", range(1000, 11000, 1000))
def test_many_merges_are_right_or_conflicts(tmp_path: Path, start: int) -> None:
    run(tmp_path, range(start, start + 1000))
