"""Random merges of models whose vocabularies differ, checked row by row by an oracle that knows tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.inprocess import copied, theta
from tests.compat.token_worlds import faults, worlds
from tests.support import Repo

CAMPAIGN = 150


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = Repo.create(tmp_path_factory.mktemp("empty") / "repo")
    theta(repo, "track", "*.safetensors")
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "first")
    return repo


def begun(empty: Repo, place: Path, seed: int) -> Repo:
    """A repository with the three versions of ``seed``; ours is checked out."""
    repo = copied(empty, place)
    for name, world in zip(("base", "ours", "theirs"), worlds(seed), strict=True):
        theta(repo, "switch", "-q", "-c", name, "base" if name != "base" else "HEAD")
        world.write(repo)
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "--allow-empty", "-m", name)
    theta(repo, "switch", "-q", "ours")
    return repo


def check(repo: Repo, seed: int, how: str) -> str:
    """Merge by ``how``; return what came of it."""
    before = repo.git("rev-parse", "HEAD")
    words = {
        "merge": ("merge", "theirs", "-X", "average", "--no-prompt", "-q"),
        "stops": ("merge", "theirs", "-X", "average", "--no-prompt", "-q", "--no-ff", "-m", "said"),
        "cherry-pick": (
            "cherry-pick",
            "theirs",
            "-X",
            "average",
            "--allow-empty",
            "--keep-redundant-commits",
        ),
        "rebase": ("rebase", "theirs", "-X", "average"),
    }[how]
    rehearsed = theta(repo, "merge", "theirs", "-X", "average", "--dry-run", "--no-prompt", code=None).code
    assert before == repo.git("rev-parse", "HEAD")
    assert repo.git("status", "--porcelain") == ""
    done = theta(repo, *words, code=None)
    assert "Traceback" not in done.err, done.err
    sides = worlds(seed)
    if how == "rebase":
        sides = (sides[0], sides[2], sides[1])
    if how in ("merge", "stops"):
        assert min(done.code, 2) == min(rehearsed, 2), f"seed {seed}: {rehearsed} became {done.code}: {done}"
    if done.code:
        assert done.out or done.err
        return "open" if repo.git("status", "--porcelain") else "refused"
    assert repo.git("status", "--porcelain") == ""
    assert not [*faults(repo, sides)], f"seed {seed}, {how}: {[*faults(repo, sides)]}"
    if how in ("merge", "stops"):
        again = theta(repo, "merge", "--replay", "HEAD", code=None)
        assert again.code == 0, f"seed {seed}, {how}: {again}"
    return "merged"


@pytest.mark.parametrize(("seed", "how"), [(0, "merge")])
def test_rows_and_names_of_tokens_belong_together(empty: Repo, tmp_path: Path, seed: int, how: str) -> None:
    check(begun(empty, tmp_path / "repo", seed), seed, how)


@pytest.mark.campaign
def test_random_vocabularies(empty: Repo, tmp_path: Path) -> None:
    found: dict[tuple[str, str], int] = {}
    for seed in range(CAMPAIGN):
        how = ("merge", "stops", "cherry-pick", "rebase")[seed % 4]
        came = check(begun(empty, tmp_path / f"{seed}", seed), seed, how)
        found[how, came] = found.get((how, came), 0) + 1
    assert all(found.get((how, "merged"), 0) > CAMPAIGN / 20 for how, _ in found), found
