"""Long histories: every version comes back, and the repository stays small."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.compat.agreement import assert_agreement, assert_history
from tests.compat.story import MODEL, SHAPES, digest, edit
from tests.support import Repo, make_model, mutate, random_tensors, sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _nudged(noise: float, old: NDArray[Any]) -> NDArray[Any]:
    return (old * (1 + noise * 1e-3)).astype(old.dtype)


def six_versions(repo: Repo) -> dict[str, str]:
    """Six commits of different kinds of edits; commit id -> sha256 of the file."""
    generator = np.random.default_rng(3)
    found = {repo.git("rev-parse", "HEAD"): digest(repo)}
    names = list(SHAPES)
    for step in range(5):
        name = names[step % len(names)]
        noise = float(generator.standard_normal())
        if step == 4:
            tensors = random_tensors({**SHAPES, "extra.weight": (16, 16)}, step)
            make_model(repo.path / MODEL, tensors)
        elif step % 3 == 0:
            mutate(repo.path / MODEL, name, partial(_nudged, noise))
        else:
            edit(repo, name, noise)
        repo.git("commit", "-q", "-am", f"version {step}")
        found[repo.git("rev-parse", "HEAD")] = digest(repo)
    return found


def assert_versions(repo: Repo, versions: dict[str, str]) -> None:
    """Each version restores exactly."""
    for revision, want in versions.items():
        repo.theta("restore", "--source", revision, MODEL)
        assert digest(repo) == want, revision
    repo.theta("restore", MODEL)


def test_each_version_of_a_history_comes_back(tracked: Repo, tmp_path: Path) -> None:
    versions = six_versions(tracked)
    assert_history(tracked)
    tracked.git("gc", "-q", "--prune=now")
    assert_versions(tracked, versions)
    assert_agreement(tracked, {MODEL: list(versions.values())[-1]})
    tracked.theta("clone", "-q", tracked.path.as_uri(), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone", tracked.ticks)
    assert_versions(clone, versions)
    tracked.theta("clone", "-q", "--depth", "1", tracked.path.as_uri(), str(tmp_path / "shallow"))
    shallow = Repo(tmp_path / "shallow", tracked.ticks)
    assert_agreement(shallow, {MODEL: list(versions.values())[-1]})


def test_each_version_comes_back_after_rebase_amend_and_gc(tracked: Repo) -> None:
    tracked.git("branch", "elsewhere", "HEAD~1")
    wanted = list(six_versions(tracked).values())
    tracked.git("checkout", "-q", "elsewhere")
    tracked.write("code.py", "print('elsewhere')\n")
    tracked.git("commit", "-q", "-am", "elsewhere")
    tracked.git("checkout", "-q", "main")
    tracked.git("rebase", "-q", "elsewhere")
    tracked.git("commit", "-q", "--amend", "-m", "amended")
    assert_history(tracked)
    for command in ("reflog expire --expire=now --all", "gc -q --prune=now"):
        tracked.git(*command.split())
    commits = tracked.git("rev-list", "--reverse", f"HEAD~{len(wanted)}..HEAD").split()
    assert_versions(tracked, dict(zip(commits, wanted, strict=True)))
    assert_agreement(tracked, {MODEL: wanted[-1]})


def test_many_status_calls_do_not_fill_the_disk(tracked: Repo) -> None:
    """As an editor does that looks while training rewrites the file."""
    shapes = {"a.weight": (256, 256), "b.weight": (256, 256)}
    make_model(tracked.path / MODEL, random_tensors(shapes, 1))
    tracked.git("commit", "-q", "-am", "larger")
    before, size = tracked.stored_bytes(), (tracked.path / MODEL).stat().st_size
    for step in range(6):
        make_model(tracked.path / MODEL, random_tensors(shapes, 100 + step))
        tracked.git("status")
    assert tracked.stored_bytes() <= before + size + 20_000
    assert_agreement(tracked)
    tracked.git("checkout", "-q", MODEL)
    tracked.git("status")
    refs = tracked.git("for-each-ref", "--format=%(refname)", "refs/theta").split("\n")
    assert len({ref.removesuffix("-text") for ref in refs}) <= 2  # a manifest has one, and its trees


@pytest.mark.campaign
def test_a_hundred_status_calls_do_not_fill_the_disk(tracked: Repo) -> None:
    shapes = {"a.weight": (512, 512), "b.weight": (512, 512)}
    make_model(tracked.path / MODEL, random_tensors(shapes, 1))
    # Git runs clean only where the size in the index is that of the file.
    tracked.git("commit", "-q", "-am", "larger")
    before, size = tracked.stored_bytes(), (tracked.path / MODEL).stat().st_size
    most = 0
    for step in range(100):
        make_model(tracked.path / MODEL, random_tensors(shapes, 100 + step))
        tracked.git("status")
        most = max(most, tracked.stored_bytes() - before)
    assert size // 2 < most <= size + 100_000
    assert_agreement(tracked)


REAL = "real.safetensors"
STEPS = 3
QUERY = "encoder.layer.{}.attention.self.query.weight"


def real_versions(repo: Repo) -> dict[str, str]:
    """Commits on the real model, a tensor each, costing about that; commit id -> sha256."""
    found = {repo.git("rev-parse", "HEAD"): sha256(repo.path / REAL)}
    for step in range(STEPS):
        before = repo.stored_bytes()
        mutate(repo.path / REAL, QUERY.format(step % 6), partial(_nudged, step + 1.0))
        if step % 2:
            repo.git("commit", "-q", "-a", "-m", f"step {step}")
        else:
            repo.theta("commit", "-q", "-a", "-m", f"step {step}")
        assert repo.stored_bytes() - before < 384 * 384 * 4 + 100_000
        found[repo.git("rev-parse", "HEAD")] = sha256(repo.path / REAL)
    return found


@pytest.mark.slow
def test_the_real_model(tracked: Repo, real_model: Path, tmp_path: Path) -> None:
    """Commit, lose, restore; more versions; clones, deep and shallow; collect, rebase, amend."""
    first = sha256(shutil.copyfile(real_model, tracked.path / REAL))
    tracked.git("add", REAL)
    tracked.git("commit", "-q", "-m", "real")
    (tracked.path / REAL).unlink()
    tracked.theta("restore", REAL)
    assert_agreement(tracked, {REAL: first})
    versions = real_versions(tracked)
    last = sha256(tracked.path / REAL)
    tracked.theta("clone", "-q", "--depth", "1", tracked.path.as_uri(), str(tmp_path / "tip"))
    tip = Repo(tmp_path / "tip", tracked.ticks)
    assert tip.git("rev-list", "--count", "HEAD") == "1"
    assert_agreement(tip, {REAL: last})
    tracked.git("clone", "-q", "--bare", tracked.path.as_uri(), str(tmp_path / "bare.git"))
    tracked.theta("clone", "-q", (tmp_path / "bare.git").as_uri(), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone", tracked.ticks)
    clone.git("gc", "-q", "--prune=now")
    for revision, want in versions.items():
        clone.theta("restore", "--source", revision, REAL)
        assert sha256(clone.path / REAL) == want, revision
    clone.theta("restore", REAL)
    clone.git("rebase", "-q", "--force-rebase", f"HEAD~{STEPS}")
    clone.git("commit", "-q", "--amend", "--no-edit", "--allow-empty", "--date=2020-01-01T00:00:00")
    clone.git("reflog", "expire", "--expire=now", "--all")
    clone.git("gc", "-q", "--prune=now")
    for back, want in enumerate(reversed(versions.values())):
        clone.theta("restore", "--source", f"HEAD~{back}", REAL)
        assert sha256(clone.path / REAL) == want, back
    clone.theta("restore", REAL)
    assert_agreement(clone, {REAL: last})
