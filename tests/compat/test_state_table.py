"""Git's three-way rule for one tensor, in all 27 states, in one merge."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.inprocess import copied, theta
from tests.compat.story import digest
from tests.support import Repo, make_model, read_model

ALL, CLEAN = "all.safetensors", "clean.safetensors"
State = tuple[str, str, str]
STATES: list[State] = list(product("-xy", "-xy", "-xy"))
"""The value of a tensor in base, ours and theirs: nothing, one value, another one."""


def name(state: State) -> str:
    """Named so that states are neighbours in the manifest."""
    return "t." + "".join(state).replace("-", "o")


def merged(state: State, side: str | None = None) -> str:
    """Return the value by git's rule; ``?`` for a conflict that no ``side`` settles."""
    base, ours, theirs = state
    if theirs in (ours, base):
        return ours
    if ours == base:
        return theirs
    return {"base": base, "ours": ours, "theirs": theirs}.get(side or "", "?")


CONFLICTS = {name(state) for state in STATES if merged(state) == "?"}


def write(repo: Repo, side: int) -> None:
    """Both files as ``side`` (0 base, 1 ours, 2 theirs) has them."""
    for path, states in ((ALL, STATES), (CLEAN, [s for s in STATES if merged(s) != "?"])):
        values = {
            name(s): np.full((3, 2), "-xy".index(s[side]), np.float32) for s in states if s[side] != "-"
        }
        make_model(repo.path / path, {"always": np.zeros(2, np.float32)} | values)


def held(repo: Repo, path: str) -> dict[str, str]:
    """The states that a file in the worktree shows."""
    found = read_model(repo.path / path)
    return {key: "-xy"[int(value.flat[0])] for key, value in found.items() if key != "always"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branches ours (checked out) and theirs off base."""
    repo = Repo.create(tmp_path_factory.mktemp("table") / "repo")
    theta(repo, "track", "*.safetensors")
    for side, branch in enumerate(("base", "ours", "theirs")):
        theta(repo, "switch", "-q", "-c", branch, *(["base"] if side else []))
        write(repo, side)
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "-m", branch)
    theta(repo, "switch", "-q", "ours")
    return repo


def test_both_values_are_a_conflict_just_where_git_says(table: Repo, tmp_path: Path) -> None:
    assert len(CONFLICTS) == 6
    repo = copied(table, tmp_path / "repo")
    told = theta(repo, "merge", "theirs", code=1)
    assert {line.split()[0] for line in told.out.splitlines() if line.startswith("t.")} == CONFLICTS
    assert f"CONFLICT: {CLEAN}" not in told.out
    assert held(repo, CLEAN) == {name(s): merged(s) for s in STATES if merged(s) not in "?-"}


@pytest.mark.parametrize("side", ["ours", "theirs", "base"])
def test_theta_and_plain_git_with_resolve_agree(table: Repo, tmp_path: Path, side: str) -> None:
    one = copied(table, tmp_path / "theta")
    theta(one, "merge", "-X", side, "theirs")
    other = copied(table, tmp_path / "git")
    assert other.try_git("merge", "theirs").returncode == 1
    theta(other, "resolve", "-X", side)
    other.git("commit", "-q", "--no-edit")
    want = {name(s): merged(s, side) for s in STATES if merged(s, side) != "-"}
    assert held(one, ALL) == want
    files = [(path, digest(one, path)) for path in (ALL, CLEAN)]
    assert_agreement(one, dict(files))
    assert_agreement(other, dict(files))
    assert one.git("rev-parse", "HEAD^{tree}") == other.git("rev-parse", "HEAD^{tree}")
