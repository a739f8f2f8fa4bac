"""The stat cache never says "unchanged" of a file that changed, whatever its stat data look like."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.support import Repo, make_model, random_tensors
from theta.git.repository import Repository
from theta.store.files.file_source import FileSource, Identity
from theta.store.files.stat_cache import StatCache

MANIFEST = "a" * 40


@pytest.fixture
def repository(repo: Repo) -> Repository:
    return Repository.discover(repo.path)


def identity(path: Path) -> Identity:
    return Identity.of(os.lstat(path))


def settled(path: Path) -> Identity:
    """The identity of ``path`` once it is old enough to be trusted."""
    deadline = time.monotonic() + 5
    found = identity(path)
    while time.time_ns() - max(found.mtime_ns, found.ctime_ns) < 60_000_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def test_an_old_file_is_known_again(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"x")
    cache = StatCache(repository)
    cache.remember("m", settled(path), MANIFEST)
    cache.save()
    again = StatCache(repository)
    assert again.manifest_of("m", identity(path)) == MANIFEST
    assert again.manifest_of("other", identity(path)) is None


def test_a_young_file_is_not_trusted(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"x")
    cache = StatCache(repository)
    cache.remember("m", identity(path), MANIFEST)
    assert cache.manifest_of("m", identity(path)) is None


@pytest.mark.parametrize("stamp", [10**9 * 1_600_000_000, 2**40 * 10**9 // 1000, 0])
def test_a_time_from_elsewhere_is_no_proof(repository: Repository, tmp_path: Path, stamp: int) -> None:
    """Mtime can be set at will (tar, rsync, a clock that was wrong): the rest must still tell."""
    path = tmp_path / "m"
    path.write_bytes(b"one")
    os.utime(path, ns=(stamp, stamp))
    cache = StatCache(repository)
    cache.remember("m", settled(path), MANIFEST)
    path.write_bytes(b"two")
    os.utime(path, ns=(stamp, stamp))
    assert cache.manifest_of("m", identity(path)) is None


def test_another_file_of_the_same_times_is_another(repository: Repository, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_bytes(b"x")
        os.utime(path, ns=(5, 5))
    cache = StatCache(repository)
    cache.remember("m", settled(one), MANIFEST)
    os.replace(two, one)
    assert cache.manifest_of("m", identity(one)) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"theta.stat/v1": []}',
        b'{"theta.stat/v1": {"m": 1}}',
        b'{"theta.stat/v2": {}}',
        b'{"theta.stat/v1": {"m": {"identity": {}, "seen_ns": 1, "manifest": "x"}}}',
        b"\xff" * 100,
    ],
    ids=range(9),
)
def test_a_damaged_cache_costs_time_only(repository: Repository, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"x")
    cache = StatCache(repository)
    cache.remember("m", settled(path), MANIFEST)
    cache.save()
    (repository.private / "stat-cache.json").write_bytes(text)
    assert StatCache(repository).manifest_of("m", identity(path)) is None


def race(path: Path, cache: StatCache, dice: random.Random) -> bool:
    """One rewrite of the same size with its mtime restored, as fast as possible; was it missed?"""
    before = os.stat(path)
    with FileSource(path) as source:
        old = source.read(0, source.size)
        source.verify_unchanged()
        cache.remember("m", source.identity, MANIFEST)
    if dice.random() < 0.3:
        time.sleep(dice.random() * 0.02)
    with path.open("r+b") as file:
        at = dice.randrange(len(old))
        file.seek(at)
        file.write(bytes([old[at] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return cache.manifest_of("m", identity(path)) is not None


def races(repository: Repository, place: Path, rounds: int) -> int:
    path = place / "m"
    path.write_bytes(b"0" * 1000)
    cache, dice = StatCache(repository), random.Random(rounds)
    return sum(race(path, cache, dice) for _ in range(rounds))


def test_a_rewrite_is_never_missed(repository: Repository, tmp_path: Path) -> None:
    assert races(repository, tmp_path, 300) == 0


@pytest.mark.campaign
def test_no_rewrite_of_thousands_is_missed(repository: Repository, tmp_path: Path) -> None:
    assert races(repository, tmp_path, 20_000) == 0


def sneak(path: Path, dice: random.Random) -> None:
    """Flip a bit of the last tensor in place; size and mtime stay."""
    info = os.stat(path)
    with path.open("r+b") as file:
        file.seek(info.st_size - 1 - dice.randrange(1000))
        [byte] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1 << dice.randrange(8)]))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def status_rounds(repo: Repo, rounds: int) -> int:
    """How many in-place rewrites ``status`` misses, driven in one process."""
    from theta.porcelain.workspace import worktree
    from theta.porcelain.workspace.session import Session
    from theta.porcelain.workspace.worktree import State

    repo.theta("track", "*.safetensors")
    path = make_model(repo.path / "m.safetensors", random_tensors({"a": (64, 64)}))
    repo.theta("add", "m.safetensors")
    repo.theta("commit", "-m", "one")
    original, dice, missed = path.read_bytes(), random.Random(5), 0
    for number in range(rounds):
        sneak(path, dice)
        changed = path.read_bytes() != original
        found = worktree.refresh(Session.here(repo.path))["m.safetensors"].state
        missed += changed and found is not State.MODIFIED
        if number % 3 == 0:
            with path.open("r+b") as file:
                file.write(original)
            assert worktree.refresh(Session.here(repo.path))["m.safetensors"].state is State.SAME
    return missed


def test_status_misses_nothing(repo: Repo) -> None:
    assert status_rounds(repo, 100) == 0


@pytest.mark.campaign
def test_status_misses_nothing_in_a_thousand_rounds(repo: Repo) -> None:
    assert status_rounds(repo, 1000) == 0


LATE = """
import os, time
named = os.replace
def late(source, target):
    if str(target).endswith(".safetensors"):
        time.sleep(1.02 - time.time() % 1)
    named(source, target)
os.replace = late
"""
"""Lets theta give a checkpoint its name in the second after it is written."""


def test_git_sees_a_sneaky_rewrite_in_the_second_in_which_a_file_got_its_name(repo: Repo) -> None:
    repo.theta("track", "*.safetensors")
    path = make_model(repo.path / "m.safetensors", random_tensors({"a": (64, 64)}))
    repo.theta("add", "m.safetensors")
    repo.theta("commit", "-m", "one")
    for number in range(2):
        path.unlink()
        repo.theta("restore", "m.safetensors", env={"THETA_TEST_FIRST": LATE})
        info = path.stat()
        assert int(info.st_mtime) == int(info.st_ctime)
        sneak(path, random.Random(number))
        assert repo.git("status", "--porcelain", "m.safetensors") == "M m.safetensors".rjust(16), number


def test_git_sees_a_sneaky_rewrite_after_theta_refreshed_the_index(repo: Repo) -> None:
    """The stat data that theta puts into the index must not fool plain git."""
    repo.theta("track", "*.safetensors")
    path = make_model(repo.path / "m.safetensors", random_tensors({"a": (64, 64)}))
    repo.theta("add", "m.safetensors")
    repo.theta("commit", "-m", "one")
    for number in range(2):
        repo.theta("status")
        sneak(path, random.Random(number))
        assert repo.git("status", "--porcelain", "m.safetensors") == "M m.safetensors".rjust(16), number
        repo.theta("restore", "m.safetensors")
        assert repo.git("status", "--porcelain", "m.safetensors") == ""


def test_git_sees_a_sneaky_rewrite_after_a_second_that_ended_between_file_and_index(repo: Repo) -> None:
    """Git trusts an index that is a second younger than the file: both are of one second in the end."""
    from theta.git.backends.index import IndexEdit
    from theta.porcelain.workspace import worktree
    from theta.porcelain.workspace.session import Session

    repo.theta("track", "*.safetensors")
    path = make_model(repo.path / "m.safetensors", random_tensors({"a": (64, 64)}))
    repo.theta("add", "m.safetensors")
    repo.theta("commit", "-m", "one")
    session, write, late = Session.here(repo.path), IndexEdit._write, [True]

    def written_late(edit: IndexEdit) -> None:
        if late.pop():
            late.append(False)
            time.sleep(1 - time.time() % 1)
        write(edit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IndexEdit, "_write", written_late)
        [(name, entry)] = session.index.items()
        worktree.put_back(session, [(name, entry.oid, entry.mode)])
    assert int(path.stat().st_mtime) == int((repo.path / ".git/index").stat().st_mtime)
    sneak(path, random.Random(1))
    assert repo.git("status", "--porcelain", "m.safetensors") == "M m.safetensors".rjust(16)


def test_git_sees_a_sneaky_rewrite_after_a_merge(repo: Repo) -> None:
    """Files look old while theta's own gits run, and only then."""
    path = repo.path / "m.safetensors"
    tensors = random_tensors({"a": (64, 64)})
    repo.theta("track", "*.safetensors")
    make_model(path, tensors)
    repo.theta("add", "-A")
    repo.theta("commit", "-m", "one")
    for number, branch in enumerate(("side", "main"), 1):
        repo.git("checkout", "--quiet", *(["-b", branch] if branch == "side" else ["-"]))
        make_model(path, {"a": tensors["a"] + number})
        repo.theta("commit", "-a", "-m", branch)
    started = time.time()
    repo.theta("merge", "-X", "average", "side")
    assert path.stat().st_mtime >= started - 0.1, "the file has the time of the merge"
    sneak(path, random.Random(3))
    assert repo.git("status", "--porcelain", "m.safetensors") == "M m.safetensors".rjust(16)
