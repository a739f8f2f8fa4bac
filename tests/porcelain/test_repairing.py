"""``theta fsck --repair-from``: objects that a disk damaged come back, and nothing is deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.compat.inprocess import copied, started, theta
from tests.compat.story import MODEL, digest, edit
from tests.support import Repo
from theta.errors import ExitCode
from theta.porcelain.care import repairing
from theta.porcelain.workspace.session import Session


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """One commit of a tracked checkpoint."""
    return started(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    """A repository whose remote has main, and another commit that only it has."""
    repo = copied(template, tmp_path / "repo")
    repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    repo.git("push", "-q", "origin", "main")
    edit(repo, "layer.0.weight", 2.0)
    theta(repo, "commit", "-q", "-am", "only here")
    return repo


def damage(file: Path, at: float = 0.5) -> None:
    """Turn one byte around."""
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0xFF
    file.chmod(0o644)
    file.write_bytes(data)


def objects(repo: Repo, pattern: str) -> list[Path]:
    """The files of objects."""
    return sorted((repo.path / ".git" / "objects").glob(pattern))


def is_fine(repo: Repo) -> bool:
    """Return whether everything that is stored can be read."""
    return theta(repo, "fsck", "--read-data", code=None).code == 0


@pytest.mark.parametrize("pattern", ["pack/*.pack", "pack/*.idx", "[0-9a-f][0-9a-f]/*"])
def test_what_the_remote_has_comes_back(repo: Repo, pattern: str) -> None:
    repo.git("push", "-q", "origin", "main")
    file = digest(repo)
    for one in objects(repo, pattern):
        damage(one)
    assert objects(repo, pattern)
    assert not is_fine(repo)
    done = theta(repo, "fsck", "--read-data", "--repair-from", "origin")
    assert " put aside in " in done.out
    assert "came from origin" in done.out
    assert is_fine(repo)
    assert list((repo.path / ".git/theta/bad").iterdir())
    (repo.path / MODEL).unlink()
    theta(repo, "restore", MODEL)
    assert digest(repo) == file
    repo.fsck()


def test_what_is_only_here_is_taken_out_of_a_damaged_pack(repo: Repo) -> None:
    """The last byte of a pack is of its checksum: each object can still be read."""
    repo.git("gc", "-q")
    for one in objects(repo, "pack/*.pack"):
        damage(one, 1.0)
    assert not is_fine(repo)
    theta(repo, "fsck", "--read-data", "--repair-from", "origin")
    assert is_fine(repo)


def test_what_is_promised_to_a_lazy_clone_stays_promised(repo: Repo, tmp_path: Path) -> None:
    """The remote went on since, so that it sends another pack."""
    for name in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        repo.git("-C", str(tmp_path / "remote.git"), "config", name, "true")
    theta(repo, "clone", "--lazy", f"file://{tmp_path}/remote.git", str(tmp_path / "lazy"))
    lazy = Repo(tmp_path / "lazy")
    repo.git("push", "-q", "origin", "main")
    for one in objects(lazy, "pack/*.pack"):
        damage(one)
    assert not is_fine(lazy)
    assert "1 pack came from origin" in theta(lazy, "fsck", "--repair-from", "origin").out
    marks = {file.stem for file in objects(lazy, "pack/*.promisor")}
    assert marks == {file.stem for file in objects(lazy, "pack/*.pack")}
    theta(lazy, "restore", MODEL)
    assert is_fine(lazy)


def test_what_nobody_has_is_said(repo: Repo) -> None:
    repo.git("gc", "-q")
    for one in objects(repo, "pack/*.pack"):
        one.chmod(0o644)
        one.write_bytes(one.read_bytes()[:40])
    done = theta(repo, "fsck", "--repair-from", "origin", code=int(ExitCode.CORRUPT))
    assert "the repository has problems" in done.err


def test_a_sound_repository_stays_as_it_is(repo: Repo) -> None:
    before = [(file, file.stat().st_mtime) for file in objects(repo, "[0-9a-f][0-9a-f]/*")]
    found = repairing.repair(Session.here(repo.path), "origin")
    assert found.aside == ()
    assert not (repo.path / ".git/theta/bad").exists()
    assert [(file, file.stat().st_mtime) for file in objects(repo, "[0-9a-f][0-9a-f]/*")] == before
    assert is_fine(repo)


def test_a_remote_that_is_not_there(repo: Repo, tmp_path: Path) -> None:
    files = objects(repo, "*/*")
    done = theta(repo, "fsck", "--repair-from", "nowhere", code=None)
    assert (done.code, done.err.split("\n")[0]) == (
        int(ExitCode.NOT_FOUND),
        "error: there is no remote 'nowhere'",
    )
    shutil.rmtree(tmp_path / "remote.git")
    assert theta(repo, "fsck", "--repair-from", "origin", code=None).code not in (0, 70)
    assert objects(repo, "*/*") == files
