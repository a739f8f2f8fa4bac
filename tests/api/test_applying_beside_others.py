"""A folder that versions are applied to while others write there, and versions that are made to harm."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theta
from tests.support import Repo
from theta import _fs
from theta.errors import (
    ChangedWhileReadError,
    CodecError,
    DiskError,
    NotFoundError,
    UsageError,
    WouldOverwriteError,
)
from theta.git.object_values import MODE_BLOB
from theta.git.run import shell
from theta.porcelain.replicas import applying, half_written, replica_state
from theta.porcelain.replicas.applying import Action
from theta.porcelain.stage import run_steps
from theta.porcelain.workspace import name_twins
from theta.porcelain.workspace.session import Session
from theta.store.read.layers import HeldValue

MODEL = "m.safetensors"
STATE = Path(".theta-applied") / "state.json"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two steps of a model and a text."""
    repo = Repo.create(tmp_path_factory.mktemp("source") / "repo")
    with theta.open(repo.path) as opened, theta.Run(opened, "r1") as run:
        for step in (1, 2):
            values = {name: np.full((64, 64), step, np.float32) for name in ("a", "b")}
            run.save(step, {MODEL: values, "config.json": str(step)}).result()
    return repo


@pytest.fixture
def opened(source: Repo) -> Iterator[theta.Repository]:
    """The repository as a program has it."""
    with theta.open(source.path) as found:
        yield found


def committed(repo: Repo, files: dict[str, str]) -> str:
    """Commit a tree of any paths, which git's index would refuse."""
    return repo.git("commit-tree", "-m", "any", _tree(repo, files))


def _tree(repo: Repo, files: dict[str, str]) -> str:
    below: dict[str, dict[str, str]] = {}
    rows = []
    for path, content in files.items():
        first, _, rest = path.partition("/")
        if rest:
            below.setdefault(first, {})[rest] = content
        else:
            blob = repo.git("hash-object", "-w", "--stdin", stdin=content)
            rows.append(f"{MODE_BLOB:o} blob {blob}\t{first}")
    rows += [f"040000 tree {_tree(repo, inner)}\t{name}" for name, inner in below.items()]
    return repo.git("mktree", stdin="".join(f"{row}\n" for row in rows))


def held(place: Path) -> dict[str, str]:
    """Path -> text of the files of a folder that are not theta's."""
    found = (path for path in place.rglob("*") if path.is_file() and ".theta-applied" not in path.parts)
    return {str(path.relative_to(place)): path.read_text("latin-1") for path in found}


@pytest.mark.parametrize(
    "path",
    [
        "model/.theta-applied/repository.git/hooks/reference-transaction",
        ".Theta-Applied/repository.git/config",
        "a/.THETA-applied/state.json",
        "a/.git/hooks/post-checkout",
        "a/.GIT/config",
    ],
)
def test_a_version_has_no_files_where_programs_of_git_or_theta_are(
    source: Repo, opened: theta.Repository, tmp_path: Path, path: str
) -> None:
    """A hook in the repository of a follower whose folder is in this one would be run by its fetch."""
    version = committed(source, {"first.txt": "1", path: "#!/bin/sh\n"})
    with pytest.raises(WouldOverwriteError, match="a place of git or theta"):
        opened.apply(version, tmp_path / "out", force=True)
    assert held(tmp_path / "out") == {}
    assert not [*(tmp_path / "out").rglob("hooks")]


@pytest.mark.parametrize("path", ["b" * 300, f"{'b' * 300}/c"])
def test_a_name_that_no_file_can_have_is_told_before_anything_is_written(
    source: Repo, opened: theta.Repository, tmp_path: Path, path: str
) -> None:
    version = committed(source, {"a": "1", path: "2"})
    with pytest.raises(DiskError, match="File name too long"):
        opened.apply(version, tmp_path / "out")
    assert held(tmp_path / "out") == {}


def test_a_revision_that_is_longer_than_any_is_not_found(opened: theta.Repository, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        opened.apply("r" * 5000, tmp_path / "out")


def test_folders_of_followers_that_were_killed_go(opened: theta.Repository, tmp_path: Path) -> None:
    """The folder of a follower that still makes its repository stays, as does one of another machine."""
    private, dead, here = tmp_path / "out" / ".theta-applied", 2**22 + 1, _fs.machine()
    mine, elsewhere, old, gone = (
        private / f"tmp_theta_{number}_{machine}_follow"
        for number, machine in ((os.getpid(), here), (dead, "00000000"), (dead, "00000001"), (dead, here))
    )
    for folder in (mine, elsewhere, old, gone):
        (folder / "made").mkdir(parents=True)
    os.utime(old, (1, 1))
    opened.apply("r1@1", tmp_path / "out")
    assert {*private.glob("tmp_theta_*")} == {mine, elsewhere}


# -- files that become folders --------------------------------------------------------------------


def test_a_file_becomes_a_folder_and_a_folder_a_file(
    source: Repo, opened: theta.Repository, tmp_path: Path
) -> None:
    flat = committed(source, {"a": "1", "z": "z"})
    deep = committed(source, {"a/b/c": "2", "a/d": "3", "z": "z"})
    for version, files in ((flat, {"a": "1"}), (deep, {"a/b/c": "2", "a/d": "3"}), (flat, {"a": "1"})):
        result = opened.apply(version, tmp_path / "out")
        assert held(tmp_path / "out") == {**files, "z": "z"}
        assert not result.notes
        assert replica_state.read(tmp_path / "out").is_whole


def test_what_is_in_the_way_is_told_before_anything_is_written(
    source: Repo, opened: theta.Repository, tmp_path: Path
) -> None:
    place = tmp_path / "out"
    flat = committed(source, {"a": "1", "b": "b"})
    deep = committed(source, {"a/b": "2", "b": "c"})
    opened.apply(deep, place)
    (place / "a" / "mine").write_text("mine")
    with pytest.raises(WouldOverwriteError, match="a directory is where a belongs"):
        opened.apply(flat, place, force=True)
    assert held(place) == {"a/b": "2", "a/mine": "mine", "b": "c"}
    shutil.rmtree(place)
    place.mkdir()
    (place / "a").write_text("mine")
    (place / "b").write_text("b")
    with pytest.raises(WouldOverwriteError, match="a/b needs a folder where"):
        opened.apply(deep, place, force=True)
    assert held(place) == {"a": "mine", "b": "b"}


# -- others write at the same time ----------------------------------------------------------------


def rewrite(place: Path) -> None:
    place.write_text("somebody's")


def appear(place: Path) -> None:
    place.unlink(missing_ok=True)
    place.write_text("somebody's")


BEFORE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a checkpoint is rewritten": (MODEL, rewrite),
    "a checkpoint is replaced": (MODEL, appear),
    "a text is rewritten": ("config.json", rewrite),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("first", ["ours", "absent", "foreign"])
def test_a_file_that_is_changed_until_it_is_replaced_stays(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, first: str
) -> None:
    """It is written while the new one is written out: after it was looked at, before the rename."""
    place = tmp_path / "out"
    path, change = BEFORE[name]
    place.mkdir()
    if first == "ours":
        opened.apply("r1@1", place)
    elif first == "foreign":
        (place / path).write_text("other")
    changed: list[str] = []

    def step(operation: str, at: str) -> None:
        if operation == "rename" and at == str(place / path):
            changed.append(at)
            change(Path(at))

    monkeypatch.setattr(_fs, "on_step", step)
    with pytest.raises(ChangedWhileReadError):
        opened.apply("r1@2", place, force=first == "foreign")
    assert (place / path).read_text() == "somebody's"
    assert changed


def test_a_file_that_goes_is_looked_at_again(
    source: Repo, opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    opened.apply(committed(source, {"a": "1", "b": "1"}), place)
    obtain = applying._Applying._obtain

    def meanwhile(self: Any, due: Any) -> None:
        obtain(self, due)
        rewrite(place / "a")

    monkeypatch.setattr(applying._Applying, "_obtain", meanwhile)
    with pytest.raises(ChangedWhileReadError):
        opened.apply(committed(source, {"b": "2"}), place)
    assert (place / "a").read_text() == "somebody's"


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_is_changed_during_the_rest_of_an_apply_is_not_ours(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    """It is changed after it is written, before the state is."""
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    finish = applying._Applying._finish

    def meanwhile(self: Any, jobs: Any) -> None:
        content = bytearray((place / MODEL).read_bytes())
        content[-3] ^= 1
        (place / MODEL).write_bytes(content)
        os.utime(place / MODEL, ns=(1, 1))
        finish(self, jobs)

    with monkeypatch.context() as patch:
        patch.setattr(applying._Applying, "_finish", meanwhile)
        opened.apply("r1@2", place, in_place=in_place)
    with pytest.raises(WouldOverwriteError):
        opened.apply("r1@2", place, in_place=in_place)


def test_a_file_that_is_removed_before_it_is_noted_comes_again(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(applying, "_wait", lambda written: (place / MODEL).unlink())
        opened.apply("r1@1", place)
    assert opened.apply("r1@1", place).files[MODEL].action is Action.WRITTEN


def test_files_that_are_names_of_one_file_are_all_replaced(
    source: Repo, opened: theta.Repository, tmp_path: Path
) -> None:
    """Replacing one name changes the stat data of the other."""
    place = tmp_path / "out"
    opened.apply(committed(source, {"a": "1", "b": "1", "c": "1"}), place)
    for name in ("b", "c"):
        (place / name).unlink()
        os.link(place / "a", place / name)
    opened.apply(committed(source, {"a": "2", "b": "3"}), place)
    assert held(place) == {"a": "2", "b": "3"}


def test_a_file_that_is_copied_over_a_half_written_one_is_not_ours(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``cp`` keeps the inode, which the state names."""
    place = tmp_path / "out"
    opened.apply("r1@1", place)

    def cut(operation: str, path: str) -> None:
        if operation == "fsync" and path.endswith(MODEL):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_fs, "on_step", cut)
        with pytest.raises(KeyboardInterrupt):
            opened.apply("r1@2", place, in_place=True)
    inode = (place / MODEL).stat().st_ino
    mine = np.arange(9, dtype=np.float32).tobytes()
    header = json.dumps({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + mine
    (place / MODEL).write_bytes(whole)
    assert (place / MODEL).stat().st_ino == inode
    with pytest.raises(WouldOverwriteError):
        opened.apply("r1@2", place, in_place=True)
    assert (place / MODEL).read_bytes() == whole


@pytest.mark.parametrize("blob", [1, 10**39, None, ["1" * 40]])
@pytest.mark.parametrize("part", ["files", "writing"])
def test_a_blob_of_the_state_is_text(
    opened: theta.Repository, tmp_path: Path, blob: object, part: str
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    body = json.loads((place / STATE).read_text())
    inner = body["theta.applied/v1"]
    row = inner["files"][MODEL]
    info = (place / MODEL).stat()
    mark = {"inode": info.st_ino, "device": info.st_dev, "size": info.st_size}
    inner[part][MODEL] = {**(row if part == "files" else mark), "blob": blob}
    (place / STATE).write_text(json.dumps(body))
    opened.apply("r1@2", place)
    assert opened.apply("r1@2", place).changed is False


# -- numbers, sources and commands ----------------------------------------------------------------


@pytest.mark.parametrize("number", ["²", "9" * 5000, "--1", "१"])
def test_a_number_of_a_step_that_is_none_is_not_read(
    source: Repo, opened: theta.Repository, tmp_path: Path, number: str
) -> None:
    tree = source.git("rev-parse", "refs/theta/runs/r1^{tree}")
    text = source.git("log", "-1", "--format=%B", "refs/theta/runs/r1").replace(": 2", f": {number}")
    assert number in text
    source.git("update-ref", "refs/theta/runs/odd", source.git("commit-tree", "-m", text, tree))
    assert [step.step for step in run_steps.steps(Session.here(source.path), "odd")] == [None]
    with pytest.raises(NotFoundError):
        opened.apply(f"odd@{number[:99]}", tmp_path / "out")


def test_a_base_that_became_shorter_is_an_error_before_it_is_decoded() -> None:
    class Short:
        size = 400

        def read(self, offset: int, length: int) -> bytes:
            return bytes(max(0, min(length, 100 - offset)))

    value = HeldValue(Short(), 0, "f32", (100,))
    assert len(value.read(0, 25)) == 25
    with pytest.raises(CodecError, match="shorter"):
        value.read(0, 26)


def test_a_command_that_the_system_cannot_start_is_told() -> None:
    with pytest.raises(UsageError, match="cannot be started"):
        shell("true", {"BIG": "x" * (1 << 20)}, lambda: False)


def cut_short(
    opened: theta.Repository, place: Path, patch: pytest.MonkeyPatch, version: str, *, writes: int
) -> None:
    """Stop an apply in place behind some of its writes to the model."""
    left = iter(range(writes))

    def stop(operation: str, path: str) -> None:
        if operation == "write" and path.endswith(MODEL) and next(left, None) is None:
            raise KeyboardInterrupt

    with patch.context() as inner:
        inner.setattr(_fs, "on_step", stop)
        with pytest.raises(KeyboardInterrupt):
            opened.apply(version, place, in_place=True)


@pytest.mark.parametrize("goes", [False, True], ids=["in the next version too", "not in the next version"])
@pytest.mark.parametrize("mine", ["another model", "a tensor of it"])
def test_a_file_of_the_same_size_over_a_half_written_one_is_not_ours(
    opened: theta.Repository,
    source: Repo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    goes: bool,
    mine: str,
) -> None:
    """``cp`` keeps the inode, and models of one shape have one size: only what is in the file tells."""
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    cut_short(opened, place, monkeypatch, "r1@2", writes=1)
    file = place / MODEL
    whole = bytearray(file.read_bytes())
    own = slice(-4096 if mine == "a tensor of it" else -2 * 4 * 64 * 64, None, 5)
    whole[own] = b"\x77" * len(whole[own])
    before = file.stat()
    file.write_bytes(whole)
    assert (file.stat().st_ino, file.stat().st_size) == (before.st_ino, before.st_size)
    if goes:
        opened.apply(committed(source, {"config.json": "3"}), place)
    else:
        with pytest.raises(WouldOverwriteError):
            opened.apply("r1@2", place, in_place=True)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("half", [0, 1000, 4096, 9000, 16383])
def test_a_chunk_that_was_half_written_is_ours(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: int
) -> None:
    """Killed in the middle of a write; the version on the way to which it was is not the next one."""
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    old = (place / MODEL).read_bytes()
    cut_short(opened, place, monkeypatch, "r1@2", writes=0)
    opened.apply("r1@2", tmp_path / "other")
    new = (tmp_path / "other" / MODEL).read_bytes()
    at = len(new) - 64 * 64 * 4
    with (place / MODEL).open("r+b") as file:
        file.seek(at)
        file.write(new[at : at + half])
    notes = opened.apply("r1@1", place, in_place=half % 2 == 0).notes
    assert any("cut short" in note for note in notes) == bool(half)
    assert (place / MODEL).read_bytes() == old


def test_bytes_that_are_of_some_version_by_chance_are_not_ours() -> None:
    random = np.random.default_rng(0)
    versions = [random.integers(0, 2, 9000, np.uint8).tobytes() for _ in range(9)]
    foreign = random.integers(0, 2, 9000, np.uint8).tobytes()

    def is_of(data: bytes, place: int = 40) -> bool:
        return half_written._is_of(data, lambda: [version[: len(data)] for version in versions], place)

    assert not is_of(foreign)
    assert not is_of(foreign[:64])
    assert not is_of(versions[0][:5000] + foreign[5000:])
    assert not is_of(bytes([2]))
    for first, second in ((0, 0), (1, 1), (1000, 1000), (4056, 8152), (3000, 4000), (9000, 9000), (5, 8999)):
        assert is_of(versions[3][:first] + versions[7][first:second] + versions[0][second:])
    assert is_of(versions[5][:4056] + versions[1][4056:8152] + versions[2][8152:])
    assert is_of(b"")


def test_a_half_written_checkpoint_gives_way_to_a_text(
    opened: theta.Repository, source: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    cut_short(opened, place, monkeypatch, "r1@2", writes=1)
    result = opened.apply(committed(source, {MODEL: "a text"}), place)
    assert any("cut short" in note for note in result.notes)
    assert (place / MODEL).read_text() == "a text"


@pytest.mark.parametrize("twins", [("A.txt", "a.txt"), ("d/\u00e9", "d/e\u0301"), ("D/x", "d/x")])
def test_files_that_are_one_in_the_folder_are_refused_before_a_write(
    opened: theta.Repository,
    source: Repo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    twins: tuple[str, str],
) -> None:
    """One would be lost in the other where names are taken in any case; elsewhere both are written."""
    version, place = committed(source, dict.fromkeys((*twins, "other"), "1")), tmp_path / "out"
    assert opened.apply(version, place).changed
    assert held(place) == dict.fromkeys((*twins, "other"), "1")
    monkeypatch.setattr(name_twins, "_takes_any_case", lambda folder: folder.is_dir())
    with pytest.raises(WouldOverwriteError, match="are one file in"):
        opened.apply(version, tmp_path / "new")
    assert held(tmp_path / "new") == {}
    assert opened.apply(version, tmp_path / "new", paths=[twins[0], "other"]).changed
    assert held(tmp_path / "new") == dict.fromkeys((twins[0], "other"), "1")


def test_a_file_system_that_takes_names_in_one_case_is_known(tmp_path: Path) -> None:
    assert not name_twins._takes_any_case(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_that_differ_in_case_alone_are_two_checkpoints(tmp_path: Path) -> None:
    """In a save, in a commit on top of it, and in a folder that is brought to it."""
    repo = Repo.create(tmp_path / "repo")
    values = {
        name: {"W": np.full(9, n, np.float32), "w": np.full(9, -n, np.float32)}
        for n, name in enumerate(
            ("A.safetensors", "a.safetensors", "Dir/m.safetensors", "dir/m.safetensors"), 1
        )
    }
    with theta.open(repo.path) as opened:
        opened.save(values, ref="run", wait=True)
        values["a.safetensors"]["W"] += 1
        opened.save({"a.safetensors": values["a.safetensors"]}, ref="run", wait=True)
        opened.apply("run", tmp_path / "out")
        for path, wanted in values.items():
            found = opened.load("run", path)
            assert {name: array.tolist() for name, array in found.items()} == {
                name: array.tolist() for name, array in wanted.items()
            }
            assert (tmp_path / "out" / path).is_file()
    stores = repo.git("ls-tree", "--name-only", "run:.theta").splitlines()
    assert len({name.lower() for name in stores}) == len(values)
