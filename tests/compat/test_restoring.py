"""One version of a checkpoint replaces another: what differs is decoded, nothing is read in vain."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat.inprocess import branched, copied, shift, started, theta
from tests.compat.story import MODEL, TENSOR, digest, edit
from tests.support import Repo
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.store.files import file_scan
from theta.store.files.file_source import Identity
from theta.store.format.manifest import Line
from theta.store.format.skeleton import Extent, Literal, Skeleton
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import Objects
from theta.store.read.stored_tensor import StoredTensor
from theta.store.read.tensor_records import record_of


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branch side has one tensor that main has not; main is checked out, and its file is known."""
    repo = started(tmp_path_factory.mktemp("both") / "repo")
    branched(repo, side=[(TENSOR, 2.0)])
    return repo


@pytest.fixture
def repo(both: Repo, tmp_path: Path) -> Repo:
    repo = copied(both, tmp_path / "repo")
    known(repo)
    return repo


def known(repo: Repo) -> None:
    """Let the stat cache know the file, which must be a little older than its note."""
    time.sleep(0.06)
    theta(repo, "status")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of tensors that are decoded."""
    names: list[str] = []
    really = StoredTensor._decoded

    def noted(self: StoredTensor, number: int) -> memoryview:
        names.append(self.line.name)
        return really(self, number)

    monkeypatch.setattr(StoredTensor, "_decoded", noted)
    return names


RESTORE = ("restore", "--source", "side", MODEL)
SWITCH = ("switch", "-q", "side")


@pytest.mark.parametrize("command", [RESTORE, SWITCH])
def test_only_what_differs_is_decoded(repo: Repo, command: tuple[str, ...], decoded: list[str]) -> None:
    theta(repo, *command)
    assert decoded == [TENSOR]
    assert shift(repo, TENSOR) == 2.0
    assert digest(repo) == digest_of(repo, "side")


def digest_of(repo: Repo, branch: str) -> str:
    theta(repo, "export", f"{branch}:{MODEL}", "-o", str(repo.path / ".git" / "whole.safetensors"), "--force")
    return digest(repo, ".git/whole.safetensors")


@pytest.mark.parametrize("command", [RESTORE, SWITCH])
def test_no_room_for_both_files(
    repo: Repo, command: tuple[str, ...], decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file is not held if there is space for one file only: git, or a crash, may need it."""
    monkeypatch.setattr("theta._room.left", lambda _: (repo.path / MODEL).stat().st_size - 1)
    monkeypatch.setattr("theta._room.require", lambda *_, **__: None)
    theta(repo, *command)
    assert len(decoded) == 5
    assert shift(repo, TENSOR) == 2.0


def test_a_file_of_another_known_version_is_not_read(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_scan, "scan", refusing)
    theta(repo, *RESTORE)
    assert shift(repo, TENSOR) == 2.0


def refusing(*_: object) -> None:
    raise AssertionError("the file was read")


def test_no_record_is_read_of_a_small_tensor_that_is_there(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest proves it, and a file may have many thousands of them."""
    read: list[str] = []

    def noted(objects: Objects, line: Line) -> Record:
        read.append(line.name)
        return record_of(objects, line)

    monkeypatch.setattr("theta.store.read.reassembly.record_of", noted)
    theta(repo, *SWITCH)
    assert read == [TENSOR]
    assert shift(repo, TENSOR) == 2.0


def test_a_file_with_the_same_values_stays(repo: Repo) -> None:
    """Though another manifest stands for it."""
    first = (repo.path / MODEL).read_bytes()
    theta(repo, "switch", "-q", "-c", "back", "side")
    (repo.path / MODEL).write_bytes(first)
    theta(repo, "commit", "-q", "-am", "as it was")
    known(repo)
    before = (repo.path / MODEL).stat()
    theta(repo, "restore", "--source", "main", MODEL)
    assert Identity.of((repo.path / MODEL).stat()) == Identity.of(before)


def test_a_file_that_somebody_wrote_is_not_taken_for_a_version(repo: Repo, decoded: list[str]) -> None:
    """With the time and the size that it had."""
    path = repo.path / MODEL
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    theta(repo, *RESTORE)
    assert len(decoded) == 5
    assert digest(repo) == digest_of(repo, "side")


def test_an_old_file_that_is_written_while_it_is_held(
    repo: Repo, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that are read of it are checked: the new file is right nevertheless."""
    really = Exchange.hold

    def hold(self: Exchange, *args: set[str]) -> Exchange:
        held = really(self, *args)
        with (repo.path / MODEL).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))
        return held

    monkeypatch.setattr(Exchange, "hold", hold)
    theta(repo, *RESTORE)
    assert len(decoded) == 2
    monkeypatch.undo()
    assert digest(repo) == digest_of(repo, "side")


@pytest.mark.parametrize("command", [RESTORE, SWITCH])
def test_a_large_file_is_known_once_it_is_written(
    repo: Repo, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next command does not read it."""
    monkeypatch.setattr(worktree, "_WORTH_A_MOMENT", 1)
    theta(repo, *command)
    session = Session.here(repo.path)
    known_as = session.cache.manifest_of(MODEL, Identity.of((repo.path / MODEL).stat()))
    assert known_as == repo.git("rev-parse", f"side:{MODEL}").strip()
    edit(repo, TENSOR, 0.5)
    assert Session.here(repo.path).files == {}


def test_what_decoding_needs_is_imported_while_git_runs(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """For large files, which are decoded by all cores once git is done."""
    prepared = threading.Event()
    monkeypatch.setattr("theta.store.read.reassembly.prepare", prepared.set)
    theta(repo, *SWITCH)
    assert not prepared.is_set()
    known(repo)
    monkeypatch.setattr("theta.porcelain.workspace.exchange._WORTH_IMPORTING", 1)
    theta(repo, "switch", "-q", "main")
    assert prepared.wait(10)


def test_a_file_that_cannot_be_begun_leaves_nothing(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    plan = Skeleton((Literal(1), Extent(4, "w")), b"|")
    begun: list[Callable[[], object]]
    with Exchange(Session.here(repo.path)) as files:
        begun = [lambda: files.begin(MODEL, "", plan), lambda: files.take(MODEL, "", plan)]
        for begin in begun:
            with pytest.raises(Exception, match="no space"):
                begin()
    assert not list((repo.path / ".git/theta/tmp").glob("tmp_*"))
