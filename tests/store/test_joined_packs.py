"""Small packs are joined: nothing is lost or coded again, for all readers, and whenever theta dies."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest

from tests.compat.inprocess import theta
from tests.support import Repo, make_model, random_tensors
from theta import _fs
from theta.git.object_format import BLOB, SHA1
from theta.git.repository import Repository
from theta.porcelain.workspace.session import Session
from theta.store.odb import joined_packs
from theta.store.odb.objects import Objects

LIMIT = 10 << 20
MANY = 8


def blobs(number: int) -> list[bytes]:
    """The content of pack ``number``: small texts, one that compresses, and one that all packs have."""
    dice = random.Random(number)
    return [dice.randbytes(dice.randrange(900, 1000)), b"%d" % number, b"0" * 70_000, b"everywhere"]


def oid_of(data: bytes) -> str:
    return SHA1.object_id(BLOB, (data,), len(data)).hex()


def written(repo: Repo, count: int, known: bool = False) -> Objects:
    """Write ``count`` small packs; if ``known``, objects that are there are not written again."""
    objects = Objects(Repository.discover(repo.path))
    for number in range(count):
        pack = objects.writer()
        if not known:
            pack._known = lambda _: False
        for data in blobs(number):
            pack.blob(data, text=len(data) > 5000)
        pack.finish()
    objects.refresh()
    return objects


def packs(repo: Repo) -> set[str]:
    """The names of all packs."""
    return {path.stem for path in (repo.path / ".git/objects/pack").glob("pack-*.pack")}


def check_whole(repo: Repo, count: int = MANY) -> None:
    """Git finds all objects, and nothing that is none."""
    repo.git("fsck", "--strict", "--no-dangling")
    told = dict(line.split(": ") for line in repo.git("count-objects", "-v").splitlines())
    assert told["garbage"] == "0"
    asked = "\n".join(oid_of(data) for number in range(count) for data in blobs(number))
    found = subprocess.run(
        ["git", "cat-file", "--batch-check"], cwd=repo.path, input=asked, capture_output=True, text=True
    ).stdout
    assert found.count(" blob ") == len(asked.split())


def joined(repo: Repo) -> bool:
    return joined_packs.join(Repository.discover(repo.path))


def test_packs_of_one_size_become_one_whose_entries_stand_as_they_stood(repo: Repo) -> None:
    written(repo, MANY - 1)
    assert not joined(repo)
    assert len(packs(repo)) == MANY - 1
    written(repo, MANY)
    before = [path.read_bytes() for path in (repo.path / ".git/objects/pack").glob("*.pack")]
    assert joined(repo)
    (one,) = (repo.path / ".git/objects/pack").glob("*.pack")
    repo.git("verify-pack", str(one))
    check_whole(repo)
    body = one.read_bytes()
    assert all(pack[12:900] in body for pack in before)  # the first entry of each
    assert len(body) < sum(map(len, before)) - 6 * 60  # what all had is there once
    assert not joined(repo)


def test_sizes_far_apart_are_not_joined_so_that_a_byte_is_copied_seldom(repo: Repo) -> None:
    objects = written(repo, MANY - 1)
    with objects.writing() as pack:
        pack.blob(random.Random(0).randbytes(100_000))
    large = packs(repo)
    assert not joined(repo)
    for number in range(MANY - 1, 4 * MANY):
        with objects.writing() as pack:
            pack.blob(random.Random(number).randbytes(1500))
        joined(repo)
    assert len(large & packs(repo)) == 1
    assert len(packs(repo)) < 2 * MANY


def kept(repo: Repo) -> None:
    for name in packs(repo):
        (repo.path / f".git/objects/pack/{name}.keep").touch()


def promised(repo: Repo) -> None:
    for name in packs(repo):
        (repo.path / f".git/objects/pack/{name}.promisor").touch()


def indexed(repo: Repo) -> None:
    repo.git("multi-pack-index", "write")


def collected(repo: Repo) -> None:
    (repo.path / ".git/gc.pid").write_text("1 elsewhere")


def held(repo: Repo) -> None:
    staged = repo.path / ".git/theta/staged"
    staged.mkdir(parents=True)
    for number, name in enumerate(packs(repo)):
        (staged / f"{number:040x}").write_text(f"{name}.pack\n1 1\n")


@pytest.mark.parametrize("mark", [kept, promised, indexed, collected, held])
def test_a_pack_that_somebody_needs_as_it_is_stays(repo: Repo, mark: Callable[[Repo], None]) -> None:
    written(repo, MANY)
    mark(repo)
    before = packs(repo)
    assert not joined(repo)
    assert packs(repo) == before


@pytest.mark.parametrize("fault", ["deltas", "damage", "cut", "index"])
def test_a_pack_with_deltas_or_damage_stays_and_is_read_once(
    repo: Repo, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are joined without it as soon as there are enough."""
    objects = written(repo, MANY - 1)
    before = packs(repo)
    if fault == "deltas":
        text = b"".join(b"%d\n" % n for n in range(3000))
        for number in range(3):
            repo.git("hash-object", "-w", "--stdin", stdin=text.decode() + f"{number}\n")
        repo.git("repack", "-q", "-d", "--depth=5", "--window=5")
        repo.git("update-ref", "refs/other", repo.git("rev-parse", "HEAD").strip())
        ids = "\n".join(oid_of(text + b"%d\n" % n) for n in range(3))
        repo.git("pack-objects", "-q", ".git/objects/pack/pack", stdin=ids)
    else:
        with objects.writing() as pack:
            pack.blob(b"other" * 300)
    (odd, *_) = sorted(packs(repo) - before)
    spoil(repo.path / f".git/objects/pack/{odd}.pack", fault)
    assert not joined(repo)
    assert odd in packs(repo)
    written(repo, MANY)
    monkeypatch.setattr(joined_packs, "_MANY", 3)
    assert joined(repo)
    assert odd in packs(repo)
    assert len(packs(repo) & before) == 0


def spoil(path: Path, fault: str) -> None:
    """Damage a pack, or its index."""
    path.chmod(0o644)
    path.with_suffix(".idx").chmod(0o644)
    data = path.read_bytes()
    if fault == "damage":
        path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    elif fault == "cut":
        path.write_bytes(data[:-30])
    elif fault == "index":
        index = path.with_suffix(".idx").read_bytes()
        path.with_suffix(".idx").write_bytes(index[:1020] + b"\xff\xff\xff\xff" + index[1032:])


def test_the_pack_that_has_all_that_the_others_have_is_not_removed(repo: Repo) -> None:
    """Joined with them it would be the same pack, of the same name."""
    objects = Objects(Repository.discover(repo.path))
    everything = [data for number in range(MANY) for data in blobs(number)[:2]]
    for part in [everything, *([data] for data in everything[: 2 * MANY : 2])]:
        pack = objects.writer()
        pack._known = lambda _: False
        for data in part:
            pack.blob(data)
        pack.finish()
    first = max((repo.path / ".git/objects/pack").glob("*.pack"), key=lambda path: path.stat().st_size)
    os.utime(first, (1, 1))
    size = joined_packs._sizes(Repository.discover(repo.path))
    group = [first, *(path for found in size.values() for path in found if path != first)]
    assert joined_packs._join(Repository.discover(repo.path), group)
    assert packs(repo) == {first.stem}
    repo.git("fsck", "--strict", "--no-dangling")
    assert all(objects.has(oid_of(data)) for data in everything)


def test_readers_that_were_there_before_find_what_was_joined(repo: Repo) -> None:
    objects = written(repo, MANY)
    mapped, unmapped = Objects(objects.repo), Objects(objects.repo)
    for number in range(MANY):
        assert mapped.chunk(oid_of(blobs(number)[0]), LIMIT) == blobs(number)[0]
    unmapped.refresh()
    raw = pygit2.Repository(str(repo.path))
    assert oid_of(b"everywhere") in raw.odb
    talk = objects.repo.git().conversation("cat-file", "--batch")
    assert b"blob" in talk.ask(oid_of(b"everywhere"))
    talk.read(len(b"everywhere") + 1)
    assert joined(repo)
    for number in range(MANY):
        data = blobs(number)[0]
        assert mapped.chunk(oid_of(data), LIMIT) == unmapped.chunk(oid_of(data), LIMIT) == data
        assert raw.odb.read(oid_of(data))[1] == data
        assert talk.ask(oid_of(data)).split()[1] == b"blob"
        assert talk.read(len(data) + 1) == data + b"\n"


def test_killed_at_any_step_it_loses_nothing_and_the_next_command_cleans_up(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined_packs, "_PUBLISHED", 0.02)
    written(repo, MANY)
    Session.here(repo.path).journal.heal()
    at, ended = 1, False
    while not ended:
        copy = repo.copy(repo.path.parent / f"copy{at}")
        child = os.fork()
        if not child:
            _die(copy.path, at)
        _, status = os.waitpid(child, 0)
        ended = os.waitstatus_to_exitcode(status) == 0
        asked = [data for number in range(MANY) for data in blobs(number)]
        raw = pygit2.Repository(str(copy.path)).odb
        assert all(raw.read(oid_of(data))[1] == data for data in asked)
        if at % 3 == 0 or ended or len(packs(copy)) > MANY:
            Session.here(copy.path).journal.heal()
            check_whole(copy)
            assert list(copy.path.rglob("tmp_theta_*")) == []
            stems = {path.stem for path in (copy.path / ".git/objects/pack").glob("*.idx")}
            assert stems == packs(copy)
        at += 1
    assert at > 2 * MANY
    assert len(packs(copy)) == 1


def _die(place: Path, at: int) -> None:
    """Change the repository, and end at step ``at`` of the disk from the joining on; never returns."""
    code = 1
    try:
        left = [at]

        def step(operation: str, path: str) -> None:
            left[0] -= bool(left[0] < at or path.endswith("joining"))
            if not left[0]:
                os._exit(9)

        session = Session.here(place)
        _fs.on_step = step
        with session.change():
            pass
        code = 0
    finally:
        os._exit(code)


def test_a_pack_that_another_process_is_about_to_index_stays(repo: Repo) -> None:
    objects = written(repo, 1)
    (path,) = (repo.path / ".git/objects/pack").glob("*.pack")
    index = path.with_suffix(".idx")
    index.rename(repo.path / "later")
    other = threading.Timer(0.3, lambda: (repo.path / "later").rename(index))
    other.start()
    joined_packs.remove_orphans(objects.repo, time.time() - 60)
    other.join()
    assert path.exists()
    index.rename(repo.path / "later")
    joined_packs.remove_orphans(objects.repo, path.stat().st_mtime + 60)
    assert path.exists()  # the dead process began after it


def test_a_pack_that_was_published_while_its_folder_was_listed_keeps_its_index(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list has the index and not the pack, as that got its name behind the place of the reader."""
    objects = written(repo, 1)
    (path,) = (repo.path / ".git/objects/pack").glob("*.pack")
    with monkeypatch.context() as patched:
        names = [name for name in os.listdir(path.parent) if name != path.name]
        patched.setattr(os, "listdir", lambda _: names)
        joined_packs.remove_orphans(objects.repo, time.time() + 60)
    check_whole(repo, 1)


def test_an_index_that_a_copying_tool_brings_before_its_pack_stays(repo: Repo) -> None:
    """One that was there when the dead process began has lost its pack, and goes."""
    objects = written(repo, 1)
    (path,) = (repo.path / ".git/objects/pack").glob("*.pack")
    path.rename(repo.path / "later")
    joined_packs.remove_orphans(objects.repo, time.time() - 60)
    assert path.with_suffix(".idx").exists()
    joined_packs.remove_orphans(objects.repo, time.time() + 60)
    assert not path.with_suffix(".idx").exists()


def test_a_full_disk_while_packs_are_joined_is_no_error(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    written(repo, MANY)
    before = packs(repo)

    def full(operation: str, path: str) -> None:
        if operation == "write":
            raise _fs.as_theta_error(OSError(28, "No space left on device"), path)

    monkeypatch.setattr(_fs, "on_step", full)
    assert not joined(repo)
    assert packs(repo) == before
    monkeypatch.undo()
    assert list(repo.path.rglob("tmp_theta_*")) == []


def test_a_long_history_of_commands_has_few_packs_without_git_gc(repo: Repo) -> None:
    repo.git("config", "gc.auto", "0")
    theta(repo, "track", "*.safetensors")
    for number in range(6):
        make_model(repo.path / "m.safetensors", random_tensors({"w": (20, 30)}, seed=number))
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "-m", f"{number}")
    assert len(packs(repo)) < MANY
    repo.fsck()
    theta(repo, "fsck", "--read-data")
