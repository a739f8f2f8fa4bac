"""A folder, or memory, is brought to a version: only what differs is decoded, nothing is left half done."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import theta
from tests.support import Repo, frameworks, sha256
from theta import _fs, _room
from theta.errors import (
    ChangedWhileReadError,
    CodecError,
    CorruptError,
    DiskError,
    NoSpaceError,
    NotFoundError,
    UsageError,
    WouldOverwriteError,
)
from theta.porcelain.replicas import applying, replica_state, standing_files
from theta.porcelain.replicas.applying import Action
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import BLOB_LIMIT, Objects
from theta.store.read import layers, reassembly, tensor_records
from theta.store.read.stored_tensor import StoredTensor

MODEL = "m.safetensors"
STATE = Path(".theta-applied") / "state.json"
STEPS = range(1, 7)

Arrays = dict[str, Any]


def values(step: int) -> Arrays:
    """Weights that each step changes a little; a tensor of two chunks, of which some steps change one."""
    generator = np.random.default_rng(0)
    big = generator.standard_normal((1500, 1500)).astype(np.float32) * 0.02
    small = generator.standard_normal((64, 48)).astype(np.float32)
    for number in range(2, step + 1):
        if number % 2:
            big[:200] += generator.standard_normal((200, 1500)).astype(np.float32) * 1e-4
        else:
            big += generator.standard_normal(big.shape).astype(np.float32) * 1e-5
        small += generator.standard_normal(small.shape).astype(np.float32) * 1e-4
    frozen = np.random.default_rng(1).standard_normal((300, 300)).astype(np.float32)
    return {"big": big.astype(ml_dtypes.bfloat16), "frozen": frozen, "small": small, "n": np.array([step])}


def files(step: int) -> dict[str, Any]:
    """The files of a step: the optimizer's have derived fields; one is there in two steps only."""
    found: dict[str, Any] = {
        MODEL: values(step),
        "opt/state.pt": {"exp_avg": values(step)["small"] * 2, "fixed": np.arange(5.0)},
        "config.json": json.dumps({"step": step}),
    }
    return found | ({"extra.npz": {"x": np.arange(step)}} if step in (3, 4) else {})


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Six steps of a run; each commit has the files of its step alone."""
    repo = Repo.create(tmp_path_factory.mktemp("steps") / "repo")
    with theta.open(repo.path) as opened:
        for step in STEPS:
            made = opened.save(
                files(step), ref="refs/scratch", step=step, metrics={"loss": 1 / step}
            ).result()
            tree = repo.git("rev-parse", f"{made.commit}^{{tree}}")
            if step > 4:  # a save leaves files of the commit before it: a step without one has its own tree
                repo.git("read-tree", tree)
                repo.git("rm", "-rq", "--cached", "--", "extra.npz", ".theta/extra.npz")
                tree = repo.git("write-tree")
            parent = ["-p", "refs/theta/runs/r1"] if step > 1 else []
            text = repo.git("log", "-1", "--format=%B", made.commit)
            commit = repo.git("commit-tree", tree, *parent, "-m", text)
            repo.git("update-ref", "refs/theta/runs/r1", commit)
    repo.git("read-tree", "HEAD")
    return repo


@pytest.fixture(scope="module")
def truth(steps: Repo, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, str]]:
    """The digest of each file of each step, as applies to new folders write them."""
    found = {}
    with theta.open(steps.path) as opened:
        for step in STEPS:
            place = tmp_path_factory.mktemp("truth") / "out"
            opened.apply(f"r1@{step}", place)
            found[step] = digests(place)
            source = opened[f"refs/theta/runs/r1~{6 - step}:{MODEL}"]
            for name, value in values(step).items():
                assert source[name].numpy().tobytes() == value.tobytes()
                assert value.tobytes() in (place / MODEL).read_bytes()
    return found


@pytest.fixture
def opened(steps: Repo) -> Iterator[theta.Repository]:
    """The repository of the steps as a program has it."""
    with theta.open(steps.path) as found:
        yield found


def digests(place: Path) -> dict[str, str]:
    """Path -> SHA-256 of the files of a folder that are not theta's."""
    found = (path for path in place.rglob("*") if path.is_file() and ".theta-applied" not in path.parts)
    return {str(path.relative_to(place)): sha256(path) for path in found}


Truth = dict[int, dict[str, str]]


@pytest.mark.parametrize("in_place", [False, True])
def test_any_step_follows_any_other(
    opened: theta.Repository, truth: Truth, tmp_path: Path, in_place: bool
) -> None:
    """Forwards, five steps at once, backwards; files come and go."""
    for step in (1, 2, 3, 6, 4, 1):
        result = opened.apply(f"r1@{step}", tmp_path / "out", in_place=in_place)
        assert digests(tmp_path / "out") == truth[step]
        assert result.changed
    assert not opened.apply("r1@1", tmp_path / "out", in_place=in_place).changed
    assert (
        opened.apply("r1", tmp_path / "out").commit
        == opened.apply("refs/theta/runs/r1", tmp_path / "out").commit
    )


def test_only_what_differs_is_decoded(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is decoded of an unchanged tensor, and no more than the changed chunks of others."""
    opened.apply("r1@2", tmp_path / "out")
    dense: list[int] = []
    alone = layers.LayerView._alone

    def counted(self: layers.LayerView, number: int, payload: str) -> Any:
        dense.append(self.lengths[number])
        return alone(self, number, payload)

    monkeypatch.setattr(layers.LayerView, "_alone", counted)
    result = opened.apply("r1@3", tmp_path / "out", paths=[MODEL], in_place=True)
    changed = result.files[MODEL]
    assert changed.action is Action.PATCHED
    assert sorted(changed.tensors) == ["big", "n", "small"]
    first = 1398 * 3000  # rows of the first chunk of 4 MiB
    assert changed.decoded == first + 64 * 48 * 4 + 8
    assert max(dense) < 20_000  # the file has the base of "big", and not that of "small"


def test_a_file_that_is_not_patched_keeps_its_inode_and_one_that_is_too(
    opened: theta.Repository, tmp_path: Path
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    inode = (place / MODEL).stat().st_ino
    opened.apply("r1@2", place, in_place=True)
    assert (place / MODEL).stat().st_ino == inode
    opened.apply("r1@3", place)
    assert (place / MODEL).stat().st_ino != inode


def test_paths_choose_files(opened: theta.Repository, truth: Truth, tmp_path: Path) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place, paths=["*.safetensors", "opt"])
    assert digests(place).keys() == {MODEL, "opt/state.pt"}
    opened.apply("r1@2", place, paths=["opt/"])
    expected = {MODEL: truth[1][MODEL], "opt/state.pt": truth[2]["opt/state.pt"]}
    assert digests(place) == expected
    with pytest.raises(NotFoundError, match="has no file other"):
        opened.apply("r1@2", place, paths=["other"])
    assert digests(place) == expected


@pytest.mark.parametrize("revision", ["r2", "r1@9", "nothing", "r1@x", ""])
def test_a_version_that_is_not_there_is_named(
    opened: theta.Repository, tmp_path: Path, revision: str
) -> None:
    with pytest.raises(NotFoundError):
        opened.apply(revision, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- files of others ------------------------------------------------------------------------------


def change(place: Path) -> None:
    """Change one byte, as another program does."""
    with place.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x55")


@pytest.mark.parametrize("path", [MODEL, "config.json"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_somebody_changed_is_not_replaced(
    opened: theta.Repository, truth: Truth, tmp_path: Path, path: str, in_place: bool
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    change(place / path)
    before = digests(place)
    with pytest.raises(WouldOverwriteError, match=f"{path} in .* nothing was changed"):
        opened.apply("r1@2", place, in_place=in_place)
    assert digests(place) == before
    result = opened.apply("r1@2", place, in_place=in_place, force=True)
    assert digests(place) == truth[2]
    assert result.notes == (f"{path} had content of its own, which is replaced",)


def test_a_file_of_somebody_that_the_version_lacks_stays(opened: theta.Repository, tmp_path: Path) -> None:
    place = tmp_path / "out"
    opened.apply("r1@4", place)
    change(place / "extra.npz")
    (place / "mine.txt").write_text("notes")
    result = opened.apply("r1@5", place)
    assert result.files["extra.npz"].action is Action.LEFT
    assert "extra.npz" in result.notes[0]
    assert {"extra.npz", "mine.txt"} <= digests(place).keys()


def test_a_folder_that_was_copied_is_known_by_its_content(
    opened: theta.Repository, truth: Truth, tmp_path: Path
) -> None:
    """Its stat data are others: it is read, and found to be a version of the run."""
    opened.apply("r1@2", tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    shutil.copytree(tmp_path / "first", tmp_path / "bare", ignore=shutil.ignore_patterns(".theta-applied"))
    for name in ("second", "bare"):
        result = opened.apply("r1@3", tmp_path / name, in_place=True)
        assert digests(tmp_path / name) == truth[3]
        assert "frozen" not in result.files[MODEL].tensors


def test_a_file_with_another_name_is_not_written_to_in_place(
    opened: theta.Repository, truth: Truth, tmp_path: Path
) -> None:
    """A hard link is a backup of somebody: its content stays."""
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    os.link(place / MODEL, tmp_path / "backup")
    assert opened.apply("r1@2", place, in_place=True).files[MODEL].action is Action.WRITTEN
    assert digests(place) == truth[2]
    assert sha256(tmp_path / "backup") == truth[1][MODEL]


def test_a_link_is_replaced_only_by_force(opened: theta.Repository, tmp_path: Path) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    shutil.move(place / MODEL, tmp_path / "elsewhere")
    (place / MODEL).symlink_to(tmp_path / "elsewhere")
    before = sha256(tmp_path / "elsewhere")
    with pytest.raises(WouldOverwriteError):
        opened.apply("r1@2", place, in_place=True)
    opened.apply("r1@2", place, in_place=True, force=True)
    assert sha256(tmp_path / "elsewhere") == before
    assert not (place / MODEL).is_symlink()


def test_a_folder_that_is_a_link_leads_nowhere(opened: theta.Repository, tmp_path: Path) -> None:
    place, victim = tmp_path / "out", tmp_path / "victim"
    place.mkdir()
    victim.mkdir()
    (place / "opt").symlink_to(victim)
    with pytest.raises(WouldOverwriteError, match=r"opt/state\.pt would be written outside"):
        opened.apply("r1@1", place, force=True)
    assert not [*victim.iterdir()]
    shutil.rmtree(place)
    place.mkdir()
    (place / ".theta-applied").symlink_to(victim)
    with pytest.raises(WouldOverwriteError, match="not a directory"):
        opened.apply("r1@1", place)
    assert not [*victim.iterdir()]


def test_the_worktree_is_not_such_a_folder(opened: theta.Repository, steps: Repo) -> None:
    for place in (steps.path, steps.path / "deep" / "down", steps.path / ".git"):
        with pytest.raises(UsageError, match="is in the repository"):
            opened.apply("r1@1", place)


def test_a_file_is_not_such_a_folder(opened: theta.Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a folder"):
        opened.apply("r1@1", tmp_path / "file")


HOSTILE: dict[str, Callable[[Any, Path], Any]] = {
    "a list": lambda body, at: [],
    "not JSON": lambda body, at: "{",
    "deep": lambda body, at: "[" * 100_000,
    "no files": lambda body, at: {"theta.applied/v1": {"commit": 3, "files": 4, "writing": [[]]}},
    "rows of other types": lambda body, at: {
        "theta.applied/v1": {"commit": "x", "files": {MODEL: 3, "a": {}}, "writing": {MODEL: {"blob": 1}}}
    },
    "a file outside": lambda body, at: outside(body, at, "../victim"),
    "a file at a full path": lambda body, at: outside(body, at, str(at.parent / "victim")),
    "a file through dots": lambda body, at: outside(body, at, "opt/../../victim"),
    "git's own": lambda body, at: outside(body, at, ".theta-applied/lock"),
    "every file said to be of step 3": lambda body, at: json.loads(
        json.dumps(body).replace(_blob(body), "0" * 40)
    ),
}


def outside(body: Any, place: Path, path: str) -> Any:
    """A state that claims that theta wrote a file outside of the folder, with true stat data."""
    info = (place / path).stat()
    row = {"size": info.st_size, "mtime_ns": info.st_mtime_ns, "ctime_ns": info.st_ctime_ns}
    row |= {"inode": info.st_ino, "device": info.st_dev}
    files = body["theta.applied/v1"]["files"]
    files[path] = {"blob": "1" * 40, "identity": row, "seen_ns": info.st_mtime_ns + 10**12}
    return body


def _blob(body: Any) -> str:
    found: str = body["theta.applied/v1"]["files"][MODEL]["blob"]
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_state_harms_nothing(
    opened: theta.Repository, truth: Truth, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    (tmp_path / "victim").write_text("precious")
    made = HOSTILE[name](json.loads((place / STATE).read_text()), place)
    (place / STATE).write_text(made if isinstance(made, str) else json.dumps(made))
    opened.apply("r1@2", place, in_place=True)
    assert digests(place) == truth[2]
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_state_that_lies_about_a_tensor_shows(
    opened: theta.Repository, truth: Truth, tmp_path: Path
) -> None:
    """The bytes that decoding begins with are those of the file: what they make is checked, and made anew."""
    place = tmp_path / "out"
    opened.apply("r1@2", place)
    with (place / MODEL).open("r+b") as file:
        file.seek(400_000)
        file.write(b"\xff" * 64)
    body = json.loads((place / STATE).read_text())
    info = (place / MODEL).stat()
    row = body["theta.applied/v1"]["files"][MODEL]
    row["identity"] |= {"mtime_ns": info.st_mtime_ns, "ctime_ns": info.st_ctime_ns}
    row["seen_ns"] = info.st_ctime_ns + 10**10
    (place / STATE).write_text(json.dumps(body))
    opened.apply("r1@3", place, in_place=True)
    assert sha256(place / MODEL) == truth[3][MODEL]


# -- failures ---------------------------------------------------------------------------------------


def killed(opened: theta.Repository, place: Path, at: int) -> bool:
    """Apply step 3 in place in a process that is killed at change ``at`` of the disk; False when it ended."""
    child = os.fork()
    if not child:
        left = iter(range(at - 1, -1, -1))
        _fs.on_step = lambda operation, path: None if next(left, -1) else os.kill(os.getpid(), 9)
        opened.apply("r1@3", place, in_place=True)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def test_an_apply_that_is_killed_at_any_write_leaves_a_version_or_a_sign(
    opened: theta.Repository, truth: Truth, tmp_path: Path
) -> None:
    """The next apply completes it or goes back, to any version, without force."""
    at, signs, place = 1, 0, tmp_path / "out"
    opened.apply("r1@2", place)
    while killed(opened, place, at):
        state, found = replica_state.read(place), digests(place)
        assert found in (truth[2], truth[3]) or not state.is_whole
        signs += not state.is_whole
        step = (3, 2, 5)[at % 3]
        opened.apply(f"r1@{step}", place, in_place=at % 2 == 0)
        assert digests(place) == truth[step]
        assert replica_state.read(place).is_whole
        assert {entry.name for entry in (place / ".theta-applied").iterdir()} == {"lock", "state.json"}
        opened.apply("r1@2", place)
        at += 1
    assert digests(place) == truth[3]
    assert at > 10
    assert signs > 4


def test_a_file_that_was_half_written_is_told_and_completed(
    opened: theta.Repository, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@2", place)
    written = []

    def step(operation: str, path: str) -> None:
        if operation == "write" and path.endswith(MODEL):
            written.append(path)
            if len(written) > 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_fs, "on_step", step)
        with pytest.raises(KeyboardInterrupt):
            opened.apply("r1@5", place, in_place=True)
    assert digests(place)[MODEL] not in (truth[2][MODEL], truth[5][MODEL])
    assert not replica_state.read(place).is_whole
    result = opened.apply("r1@4", place, in_place=True)
    assert "an apply was cut short" in result.notes[0]
    assert digests(place) == truth[4]


def test_a_file_that_was_half_written_twice_is_completed(
    opened: theta.Repository, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has parts of three versions."""
    place = tmp_path / "out"
    opened.apply("r1@2", place)
    for version, writes in (("r1@3", 1), ("r1@5", 1)):
        left = iter(range(writes))

        def step(operation: str, path: str, left: Iterator[int] = left) -> None:
            if operation == "write" and path.endswith(MODEL) and next(left, None) is None:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(_fs, "on_step", step)
            opened.apply(version, place, in_place=True)
    assert digests(place)[MODEL] not in {found[MODEL] for found in truth.values()}
    assert len(replica_state.read(place).writing[MODEL].over) == 1
    opened.apply("r1@1", place, in_place=True)
    assert digests(place) == truth[1]


def test_a_folder_that_cannot_be_written_says_so(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    before = digests(place)

    def refuse(operation: str, path: str) -> None:
        if path.startswith(str(place)):
            raise _fs.as_theta_error(OSError(30, os.strerror(30)), path)

    monkeypatch.setattr(_fs, "on_step", refuse)
    with pytest.raises(DiskError, match="Read-only file system"):
        opened.apply("r1@2", place)
    assert digests(place) == before


def test_too_little_space_is_said_before_anything_is_written(
    opened: theta.Repository, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    monkeypatch.setattr(_fs, "free_space", lambda _: _room.RESERVE + 5000)
    with pytest.raises(NoSpaceError):
        opened.apply("r1@2", place)
    assert digests(place) == truth[1]
    assert replica_state.read(place).is_whole
    opened.apply("r1@2", place, in_place=True)  # which needs none
    assert digests(place) == truth[2]


def test_a_disk_that_gets_full_leaves_the_old_version(
    opened: theta.Repository, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)

    def full(operation: str, path: str) -> None:
        if operation == "write" and path.endswith("state.pt"):
            raise _fs.as_theta_error(OSError(28, os.strerror(28)), path)

    with monkeypatch.context() as patch:
        patch.setattr(_fs, "on_step", full)
        with pytest.raises(NoSpaceError):
            opened.apply("r1@2", place)
    assert digests(place) == truth[1]
    opened.apply("r1@2", place)
    assert digests(place) == truth[2]


def test_a_file_that_is_changed_before_it_is_noted_is_not_taken_for_ours(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(applying, "_wait", lambda written: change(place / MODEL))
        opened.apply("r1@1", place)
    with pytest.raises(WouldOverwriteError):
        opened.apply("r1@2", place)


def test_a_file_that_is_changed_meanwhile_is_not_written_over(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    opened.apply("r1@1", place)
    look = standing_files.Folder.look

    def meanwhile(self: Any, wanted: Any, at: Path) -> Any:
        found = look(self, wanted, at)
        if wanted.path == MODEL:
            change(at)
        return found

    monkeypatch.setattr(standing_files.Folder, "look", meanwhile)
    for in_place in (True, False):
        with pytest.raises((ChangedWhileReadError, WouldOverwriteError)):
            opened.apply("r1@2", place, in_place=in_place)


# -- memory ----------------------------------------------------------------------------------------


def arrays(step: int) -> Arrays:
    """Copies of the values of a step."""
    return {name: value.copy() for name, value in values(step).items()}


@pytest.mark.parametrize("since", [None, "r1@1"])
def test_arrays_are_brought_to_a_version(opened: theta.Repository, since: str | None) -> None:
    there = arrays(1)
    addresses = {name: value.ctypes.data for name, value in there.items()}
    result = opened.apply("r1@4", {MODEL: there}, since=since)
    assert sorted(result.files[MODEL].tensors) == ["big", "n", "small"]
    for name, value in values(4).items():
        assert there[name].tobytes() == value.tobytes()
        assert there[name].ctypes.data == addresses[name]
    assert opened.apply("r1@4", {MODEL: there}).files[MODEL].action is Action.KEPT


def test_arrays_that_hold_something_else_are_brought_there_too(opened: theta.Repository) -> None:
    """A wrong ``since`` costs time where the value follows from it."""
    there = arrays(1)
    there["big"][100] = 1.0
    opened.apply("r1@2", {MODEL: there}, since="r1@1")
    assert there["big"].tobytes() == values(2)["big"].tobytes()


def test_the_records_of_small_tensors_are_read_of_the_new_version_alone(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record takes longer than the words of a small tensor; the names in its tree tell what is needed."""
    read: list[str] = []
    record_of = tensor_records.record_of

    def noted(objects: Objects, line: Line) -> Record:
        read.append(line.name)
        return record_of(objects, line)

    monkeypatch.setattr(tensor_records, "record_of", noted)
    there = arrays(1)
    opened.apply("r1@2", {MODEL: there}, since="r1@1")
    assert sorted(read) == ["big", "big", "n", "small"]  # the other has two chunks, one of which may be there
    assert there["small"].tobytes() == values(2)["small"].tobytes()


def test_small_tensors_are_decoded_on_the_value_that_is_there(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[int, ...]] = []
    read = layers.HeldValue.read

    def noted(value: layers.HeldValue, start: int, stop: int) -> Any:
        held.append(value.shape)
        return read(value, start, stop)

    monkeypatch.setattr(layers.HeldValue, "read", noted)
    opened.apply("r1@2", {MODEL: arrays(1)}, since="r1@1")
    assert (64, 48) in held


def test_a_small_step_needs_neither_layers_nor_threads(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    init = StoredTensor.__init__

    def noted(stored: StoredTensor, objects: Objects, line: Line, *args: Any, **named: Any) -> None:
        made.append(line.name)
        init(stored, objects, line, *args, **named)

    monkeypatch.setattr(StoredTensor, "__init__", noted)
    monkeypatch.setattr(reassembly, "ordered", None)
    there = arrays(1)
    del there["big"]
    small = {name: value for name, value in arrays(1).items() if name != "big"}
    opened.save({"small.safetensors": small}, ref="refs/heads/small").result()
    after = {name: value for name, value in values(2).items() if name != "big"}
    opened.save({"small.safetensors": after}, ref="refs/heads/small").result()
    opened.apply("small", {"small.safetensors": there}, since="small~1")
    assert there["small"].tobytes() == after["small"].tobytes()
    assert "small" not in made


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_a_small_tensor_that_holds_something_else_is_decoded_through_its_layers(
    opened: theta.Repository, place: int
) -> None:
    there = arrays(1)
    there["small"].reshape(-1)[place] = 7.0
    opened.apply("r1@2", {MODEL: there}, since="r1@1")
    assert there["small"].tobytes() == values(2)["small"].tobytes()


@pytest.mark.parametrize("damage", [b"", b"\1", b"\0\0", bytes(range(200))])
def test_a_damaged_small_step_is_an_error_and_nothing_of_it_is_written(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    there = arrays(1)
    monkeypatch.setattr(Objects, "chunk", lambda *_: damage)
    records: dict[str, bytes] = {}

    def text(objects: Objects, oid: str, limit: int = BLOB_LIMIT) -> bytes:
        return records.setdefault(oid, objects.repo.read_blob(oid))

    monkeypatch.setattr(Objects, "text", text)
    with pytest.raises((CorruptError, CodecError)):
        opened.apply("r1@2", {MODEL: there}, since="r1@1")
    assert there["small"].tobytes() == arrays(1)["small"].tobytes()


BAD: dict[str, Callable[[Arrays], Any]] = {
    "no array for the tensor small": lambda there: there.pop("small"),
    "its array is f32": lambda there: there.update(big=np.zeros((1500, 1500), np.float32)),
    r"its array is f32 \[48, 64\]": lambda there: there.update(small=np.zeros((48, 64), np.float32)),
    "is not contiguous": lambda there: there.update(small=np.zeros((48, 64), np.float32).T),
    "big-endian": lambda there: there.update(small=np.zeros((64, 48), ">f4")),
    "of type list": lambda there: there.update(small=[1.0]),
}


@pytest.mark.parametrize("said", BAD)
def test_arrays_that_do_not_fit_are_named_before_any_is_written(opened: theta.Repository, said: str) -> None:
    there = arrays(1)
    BAD[said](there)
    with pytest.raises(UsageError, match=said):
        opened.apply("r1@2", {MODEL: there})
    assert there["n"].tobytes() == values(1)["n"].tobytes()


def test_a_read_only_array_or_buffer_is_refused(opened: theta.Repository) -> None:
    there = arrays(1)
    there["small"].flags.writeable = False
    with pytest.raises(UsageError, match="cannot be written"):
        opened.apply("r1@2", {MODEL: there})
    with pytest.raises(UsageError, match="cannot be written"):
        opened.apply("r1@2", {MODEL: b"x" * 100})
    with pytest.raises(UsageError, match="neither a mapping"):
        opened.apply("r1@2", {MODEL: 3})
    with pytest.raises(NotFoundError, match="no checkpoint other"):
        opened.apply("r1@2", {"other": arrays(1)})


def test_a_shared_memory_map_is_brought_to_a_version(
    opened: theta.Repository, steps: Repo, tmp_path: Path
) -> None:
    """It holds the bytes of the file; another process sees them."""
    opened.apply("r1@1", tmp_path / "first", paths=[MODEL, "opt"])
    opened.apply("r1@4", tmp_path / "last", paths=[MODEL, "opt"])
    for path in (MODEL, "opt/state.pt"):
        wanted = (tmp_path / "last" / path).read_bytes()
        shared = shared_memory.SharedMemory(create=True, size=len(wanted) + 100)
        assert shared.buf is not None
        try:
            first = (tmp_path / "first" / path).read_bytes()
            shared.buf[: len(first)] = first
            opened.apply("r1@4", {path: shared.buf})
            other = shared_memory.SharedMemory(shared.name)
            assert other.buf is not None
            assert bytes(other.buf[: len(wanted)]) == wanted
            other.close()
            with pytest.raises(UsageError, match="the file needs"):
                opened.apply("r1@4", {path: bytearray(100)})
        finally:
            shared.close()
            shared.unlink()


@pytest.mark.frameworks
def test_torch_tensors_are_written_in_place(opened: theta.Repository) -> None:
    frameworks.need("torch")
    torch = importlib.import_module("torch")
    there = {name: torch.zeros(value.shape, dtype=torch.float32) for name, value in values(1).items()}
    there["big"], there["n"] = there["big"].to(torch.bfloat16), there["n"].to(torch.int64)
    opened.apply("r1@3", {MODEL: there})
    assert (there["small"].numpy() == values(3)["small"]).all()


# -- the command ------------------------------------------------------------------------------------


def test_the_command_tells_what_it_did(steps: Repo, truth: Truth, tmp_path: Path) -> None:
    place = str(tmp_path / "out")
    done = steps.theta("apply", "r1@1", "--into", place)
    assert f"{MODEL}: written, 4 tensor(s), 4.9 MB decoded\n" in done.stdout
    done = steps.theta("apply", "r1@2", MODEL, "--into", place, "--in-place", "--json")
    told = json.loads(done.stdout)["theta.apply/v1"]
    assert told["files"] == [
        {"path": MODEL, "action": "patched", "tensors": ["n", "small", "big"], "decoded": 4_512_296}
    ]
    assert steps.theta("apply", "r1@2", MODEL, "--into", place).stdout.startswith("already at ")
    assert steps.theta("apply", "--into", place, code=2).stderr.startswith("error: a version is wanted")
    assert "r1@77" not in steps.theta("apply", "r1@77", "--into", place, code=13).stdout


def test_without_a_folder_it_is_git_apply(repo: Repo) -> None:
    repo.write("code.py", "print('bye')\n")
    patch = repo.git("diff") + "\n"
    repo.git("checkout", "code.py")
    repo.write("change.patch", patch)
    repo.theta("apply", "--stat", "change.patch")
    repo.theta("apply", "change.patch")
    assert (repo.path / "code.py").read_text() == "print('bye')\n"
    assert repo.theta("apply", "--force", "change.patch", code=2).stderr.startswith("error: --into names")
