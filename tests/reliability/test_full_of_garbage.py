"""A disk full of steps that a run does not keep any more: collecting them has no room to write in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import theta
from tests.support import Repo
from tests.support.confined import as_root, tmpfs
from theta.git.run import GitFailedError
from theta.porcelain.care import collecting
from theta.porcelain.workspace.session import Session

RUN = "refs/theta/runs/r1"


def packs(repo: Repo) -> int:
    return len([*(repo.path / ".git" / "objects" / "pack").glob("*.pack")])


_FILL = """
import sys
import numpy as np
import pytest
import theta
from theta.errors import NoSpaceError

numbers, step = np.random.default_rng(0), 0
with theta.open(sys.argv[1]) as repo:
    run = theta.Run(repo, "r1")
    try:
        while True:
            weights = numbers.integers(0, 1 << 32, 250_000, np.uint32)
            run.save(step + 1, {"m.safetensors": {"w": weights}}).result()
            step += 1
    except NoSpaceError:
        print(step)
"""


def filled(repo: Repo) -> int:
    """Save steps until the disk is full; return the number of the last one.

    A process of its own does it: the space of files that are mapped is not free while it lives.
    """
    return int(subprocess.check_output([sys.executable, "-c", _FILL, str(repo.path)]))


def leave(place: Path, room: int) -> None:
    """Fill the disk except for so many bytes: those of what a program that failed removed again."""
    (place / "more").write_bytes(bytes(max(shutil.disk_usage(place).free - room, 0)))


@as_root
def test_steps_that_are_not_kept_give_way_on_a_full_disk(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "9m") as place:
        repo = Repo.create(place / "repo")
        last = filled(repo)
        assert last > 3
        repo.theta("runs", "prune", "r1", "--last", "1")
        (place / "rest").write_bytes(bytes(64 << 10))
        failed = repo.theta("gc", code=28)
        assert "gc --prune=now" in failed.stderr
        leave(place, 48 << 10)
        repo.theta("gc", "--prune=now")
        assert packs(repo) == 1
        repo.git("fsck", "--strict")
        with theta.open(repo.path) as opened:
            (step,) = theta.Run(opened, "r1").steps()
            assert step.step == last
            assert opened.load(f"r1@{last}", "m.safetensors")["w"].size == 250_000


def test_nothing_goes_where_a_reachable_object_is_missing(tmp_path: Path) -> None:
    """The content of a tree that is gone may be all that is left of it; git refuses to collect there."""
    repo = Repo.create(tmp_path / "repo")
    for name in ("a", "b"):
        (repo.path / name).mkdir()
        (repo.path / name / "file").write_text(name)
        repo.git("add", name)
        repo.git("commit", "--quiet", "-m", name)
        repo.git("repack", "--quiet")
    tree = repo.git("rev-parse", "HEAD:b")
    kept = repo.git("cat-file", "blob", "HEAD:b/file")
    repo.git("repack", "-a", "-d", "-f", "--quiet")
    (pack,) = (repo.path / ".git" / "objects" / "pack").glob("*.pack")
    moved = tmp_path / "moved.pack"
    pack.rename(moved)
    for other in pack.parent.glob("pack-*"):
        other.unlink()
    with moved.open("rb") as file:
        subprocess.run(["git", "unpack-objects", "-q"], cwd=repo.path, stdin=file, check=True)
    (repo.path / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    blob = repo.git("hash-object", "-w", "--stdin", stdin=kept)
    name = str(repo.path / ".git" / "objects" / "pack" / "pack")
    repo.git("pack-objects", "-q", name, stdin=blob)
    with pytest.raises(GitFailedError):
        collecting.remove_packs(Session.here(repo.path).repo)
    assert packs(repo) == 1


def test_packs_go_whose_objects_are_all_garbage_and_no_others(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    with theta.open(repo.path) as opened:
        run = theta.Run(opened, "r1")
        for step in (1, 2, 3, 4):
            run.save(step, {f"{step}.safetensors": {"w": np.full(4000, step)}}).result()
    repo.git("update-ref", "refs/heads/two", f"{RUN}~2")
    held = sorted((repo.path / ".git" / "objects" / "pack").glob("*.pack"))[0].with_suffix(".keep")
    before = packs(repo)
    assert collecting.remove_packs(Session.here(repo.path).repo) == 0
    repo.git("update-ref", "-d", RUN)
    held.touch()
    gone = collecting.remove_packs(Session.here(repo.path).repo)
    assert 1 <= gone <= 2
    assert packs(repo) == before - gone
    repo.git("fsck", "--strict")
    held.unlink()
    repo.git("update-ref", "-d", "refs/heads/two")
    collecting.remove_packs(Session.here(repo.path).repo)
    assert packs(repo) == 0
