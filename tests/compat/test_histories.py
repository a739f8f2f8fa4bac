"""Long histories: every version comes back, and the repository stays small."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.compat.agreement import assert_agreement, assert_history
from tests.compat.story import MODEL, SHAPES, commit, digest, edit
from tests.support import Repo, make_model, mutate, random_tensors, sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _nudged(noise: float, old: NDArray[Any]) -> NDArray[Any]:
    return (old * (1 + noise * 1e-3)).astype(old.dtype)


def ten_versions(repo: Repo) -> dict[str, str]:
    """Ten commits of different kinds of edits; commit id -> sha256 of the file."""
    generator = np.random.default_rng(3)
    found = {repo.git("rev-parse", "HEAD"): digest(repo)}
    names = list(SHAPES)
    for step in range(9):
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
    versions = ten_versions(tracked)
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
    wanted = list(ten_versions(tracked).values())
    tracked.git("checkout", "-q", "elsewhere")
    tracked.write("code.py", "print('elsewhere')\n")
    tracked.git("commit", "-q", "-am", "elsewhere")
    tracked.git("checkout", "-q", "main")
    tracked.git("rebase", "-q", "elsewhere")
    tracked.git("commit", "-q", "--amend", "-m", "amended")
    assert_history(tracked)
    for command in ("reflog expire --expire=now --all", "gc -q --prune=now"):
        tracked.git(*command.split())
    commits = tracked.git("rev-list", "--reverse", "HEAD~10..HEAD").split()
    assert_versions(tracked, dict(zip(commits, wanted, strict=True)))
    assert_agreement(tracked, {MODEL: wanted[-1]})


def test_many_status_calls_do_not_fill_the_disk(tracked: Repo) -> None:
    """As an editor does that looks while training rewrites the file."""
    shapes = {"a.weight": (256, 256), "b.weight": (256, 256)}
    make_model(tracked.path / MODEL, random_tensors(shapes, 1))
    tracked.git("commit", "-q", "-am", "larger")
    before, size = tracked.stored_bytes(), (tracked.path / MODEL).stat().st_size
    for step in range(12):
        make_model(tracked.path / MODEL, random_tensors(shapes, 100 + step))
        tracked.git("status")
    assert tracked.stored_bytes() <= before + size + 20_000
    assert_agreement(tracked)
    tracked.git("checkout", "-q", MODEL)
    tracked.git("status")
    assert len(tracked.git("for-each-ref", "refs/theta").split("\n")) <= 2


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_real_model(tracked: Repo, real_model: Path, tmp_path: Path) -> None:
    """Commit, lose, restore; one tensor changed costs about that tensor; clone; rebase; collect."""
    path = "real.safetensors"
    shutil.copyfile(real_model, tracked.path / path)
    first = sha256(real_model)
    tracked.git("add", path)
    tracked.git("commit", "-q", "-m", "real")
    (tracked.path / path).unlink()
    tracked.theta("restore", path)
    assert_agreement(tracked, {path: first})
    before = tracked.stored_bytes()
    tensor = "encoder.layer.0.attention.self.query.weight"
    mutate(tracked.path / path, tensor, lambda old: (old + old.std() * 1e-3).astype(old.dtype))
    second = sha256(tracked.path / path)
    tracked.theta("commit", "-q", "-a", "-m", "one tensor")
    assert tracked.stored_bytes() - before < 384 * 384 * 4 + 100_000
    assert_agreement(tracked, {path: second})
    tracked.git("clone", "-q", "--bare", "--depth", "2", tracked.path.as_uri(), str(tmp_path / "bare.git"))
    tracked.theta("clone", "-q", (tmp_path / "bare.git").as_uri(), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone", tracked.ticks)
    assert_agreement(clone, {path: second})
    clone.git("gc", "-q", "--prune=now")
    clone.git("checkout", "-q", "HEAD~1")
    assert_agreement(clone, {path: first})
    new = commit(tracked, "layer.1.weight")
    tracked.git("rebase", "-q", "--force-rebase", "HEAD~2")
    assert_agreement(tracked, {path: second, MODEL: new})
