"""Objects are found in packs, loose, and in alternates, and as they come; nothing else is."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import pytest

from tests.support import Repo
from theta.errors import DamagedRepositoryError
from theta.git.backends.loose_and_packed import ObjectFiles, places
from theta.git.repository import Repository


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_what_git_has_is_found(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DEFAULT_HASH", form)
    repo = Repo.create(tmp_path / "repo")
    objects = repo.path / ".git/objects"
    found = ObjectFiles(places(objects), 20 if form == "sha1" else 32)
    for turn in range(4):
        repo.write("a", f"{turn}" * 3)
        repo.git("add", "-A")
        repo.git("commit", "-qm", f"{turn}")
        ids = repo.git("rev-list", "--all", "--objects", "--no-object-names").split()
        absent = [oid[:-1] + ("0" if oid[-1] != "0" else "1") for oid in ids]
        assert all(map(found.has, ids)) and not any(map(found.has, absent))
        repo.git("repack", "-q", *(["-a", "-d"] if turn == 2 else ["-d"]))  # some packs, then one
        assert all(map(found.has, ids)) and not any(map(found.has, absent))
    repo.git("clone", "-q", "--shared", ".", str(tmp_path / "shared"))
    borrowed = ObjectFiles(places(tmp_path / "shared/.git/objects"), len(ids[0]) // 2)
    assert all(map(borrowed.has, ids)) and not any(map(borrowed.has, absent))


def test_a_pack_that_came_in_the_same_tick_as_the_last_look_is_found(repo: Repo) -> None:
    """The clock of a file system goes on every 4 ms or so, and a folder has the same time till then."""
    objects = repo.path / ".git/objects"
    repo.git("repack", "-q", "-a", "-d")
    found, before = ObjectFiles([objects], 20), os.stat(objects / "pack")
    assert not found.has("ab" * 20)
    oid = repo.git("commit-tree", "-m", "new", "HEAD^{tree}").strip()
    repo.git("update-ref", "refs/heads/new", oid)
    repo.git("repack", "-q", "-d")
    os.utime(objects / "pack", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found.has(oid)


def test_a_loose_object_is_whole_or_damaged(repo: Repo) -> None:
    oid = repo.git("rev-parse", "HEAD:code.py")
    place = repo.path / ".git/objects" / oid[:2] / oid[2:]
    files, whole = ObjectFiles([place.parents[1]], 20), place.read_bytes()
    assert files.loose(oid) == ("blob", repo.git("cat-file", "blob", oid).encode() + b"\n")
    assert files.loose_ids(oid[:7]) == {oid}
    place.chmod(0o600)
    for data in (whole[:-9], whole[:5], b"", b"no", whole + b"more", zlib.compress(b"blob 1\0a")):
        place.write_bytes(data)
        with pytest.raises(DamagedRepositoryError, match=oid):
            files.loose(oid)
    place.unlink()
    assert files.loose(oid) is None
    assert files.loose_ids(oid[:7]) == set()
    for content in (b"blob 9\0short", b"blob", b"evil 1\0a"):
        lie = hashlib.sha1(content).hexdigest()
        (place := repo.path / ".git/objects" / lie[:2] / lie[2:]).parent.mkdir(exist_ok=True)
        place.write_bytes(zlib.compress(content))
        with pytest.raises(DamagedRepositoryError, match=lie):
            files.loose(lie)


def _torn(repo: Repo, oid: str) -> None:
    """Cut a loose object short, so that libgit2 would read it for ever."""
    place = repo.path / ".git/objects" / oid[:2] / oid[2:]
    place.chmod(0o600)
    place.write_bytes(place.read_bytes()[:-9])


@pytest.mark.parametrize("torn", ["HEAD~2", "HEAD", "HEAD:folder", "HEAD^{tree}", "HEAD:code.py", "v1"])
def test_no_way_to_an_object_hangs_over_one_that_ends_early(tmp_path: Path, torn: str) -> None:
    """It is read by its id, by a name, by a path, by the beginning of its id, and on a walk."""
    repo = Repo.create(tmp_path / "repo")
    for turn in range(5):
        repo.write("code.py", f"{turn}\n" * 9)
        repo.write("folder/code.py", f"{turn}\n" * 8)
        repo.git("add", "-A")
        repo.git("commit", "-qm", f"{turn}")
    repo.git("tag", "-a", "-m", "told", "v1")
    head, first, oid = (repo.git("rev-parse", name) for name in ("HEAD", "HEAD~4", torn))
    _torn(repo, oid)
    history, objects = (backend := Repository.discover(repo.path).backend).history, backend.objects
    asked: dict[str, Callable[[], object]] = {
        "read": lambda: objects.read(oid),
        "begins": lambda: history.named(oid[:10]),
        "far": lambda: history.named("HEAD~3"),
        "file": lambda: history.named("HEAD:folder/code.py"),
        "peeled": lambda: history.named("v1^{commit}"),
        "walk": lambda: list(history.since(head)),
        "base": lambda: history.merge_base(head, first),
        "descends": lambda: history.descends(head, first),
    }
    met = {
        "HEAD~2": {"far", "walk", "base", "descends"},
        "HEAD": {"far", "file", "peeled", "walk", "base", "descends"},
        "HEAD:folder": {"file"},
        "HEAD^{tree}": {"file"},
        "v1": {"peeled"},
    }
    for name, ask in asked.items():
        if name in {"read", "begins"} | met.get(torn, set()):
            with pytest.raises(DamagedRepositoryError, match=oid):
                ask()
        else:
            assert ask()


def test_an_object_of_a_pack_is_read_whatever_its_file_is(repo: Repo) -> None:
    repo.git("repack", "-q", "-a")
    oid = repo.git("rev-parse", "HEAD")
    _torn(repo, oid)
    backend = Repository.discover(repo.path).backend
    assert backend.objects.read(oid) == ("commit", repo.git("cat-file", "commit", oid).encode() + b"\n")
    assert backend.history.named("HEAD^{commit}") == oid
    with pytest.raises(DamagedRepositoryError, match=oid):  # libgit2 looks at all that begins so
        backend.history.named(oid[:9])


def test_threads_read_at_once(repo: Repo) -> None:
    """libgit2 holds a lock while Python reads a file, and Python gives other threads a turn meanwhile."""
    backend = Repository.discover(repo.path).backend
    head, names = repo.git("rev-parse", "HEAD"), ("HEAD", "HEAD:code.py", "HEAD^{tree}")
    ids = [repo.git("rev-parse", name) for name in names]

    def read(_turn: int) -> None:
        assert [backend.history.named(name) for name in names] == ids
        assert None not in [backend.objects.read(oid) for oid in ids]
        assert next(backend.history.since(head)) == head

    with futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(200)))


def test_a_damaged_index_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    for number, data in enumerate((b"", b"PACK" * 400, b"\xfftOc\0\0\0\x02" + b"\xff" * 1100)):
        (tmp_path / f"pack/pack-{number}.idx").write_bytes(data)
    assert not ObjectFiles([tmp_path], 20).has("ab" * 20)
