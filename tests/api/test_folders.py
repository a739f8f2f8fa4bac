"""Folders of files as steps of a run: they are saved as they are, and come back byte for byte."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theta
from tests.compat.agreement import assert_commit
from tests.compat.inprocess import copied
from tests.support import Repo, make_model, random_tensors
from theta import _fs
from theta.errors import ChangedWhileReadError, NotFoundError, UsageError, WouldOverwriteError

RUN = "refs/theta/runs/r1"


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    """A copy of ``template`` that the test may change."""
    return copied(template, tmp_path / "repo")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder such as a trainer writes: weights, text, and a file that is no checkpoint."""
    place = tmp_path / "checkpoint-1"
    (place / "inner").mkdir(parents=True)
    make_model(place / "model.safetensors", random_tensors({"w": (40, 50), "b": (7,)}))
    make_model(place / "inner" / "adapter.safetensors", random_tensors({"w": (4, 5)}, 1))
    (place / "state.json").write_text('{"step": 1}\r\n')
    (place / "arguments.bin").write_bytes(b"\0\1\2\r\n" * 100)
    return place


def contents(place: Path) -> dict[str, bytes]:
    """Path -> bytes of all files below ``place``."""
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def resumed(opened: theta.Repository) -> Any:
    found = theta.Run(opened, "r1").resume()
    assert found is not None
    return found


def test_a_folder_comes_back_as_it_was(
    opened: theta.Repository, repo: Repo, folder: Path, tmp_path: Path
) -> None:
    theta.Run(opened, "r1").save_folder(1, folder, {"loss": 2.0}).result()
    assert contents(resumed(opened).write(tmp_path / "again")) == contents(folder)
    assert resumed(opened)["model.safetensors"]["w"].shape == (40, 50)
    assert repo.git("show", f"{RUN}:state.json") == '{"step": 1}'
    assert_commit(repo, RUN)


def test_a_folder_is_all_of_its_step(
    opened: theta.Repository, repo: Repo, folder: Path, tmp_path: Path
) -> None:
    """A shard or a state that the next folder lacks is not in the next step either."""
    run = theta.Run(opened, "r1")
    run.save_folder(1, folder).result()
    (folder / "inner" / "adapter.safetensors").unlink()
    (folder / "state.json").rename(folder / "state.txt")
    run.save_folder(2, folder).result()
    assert contents(resumed(opened).write(tmp_path / "again")) == contents(folder)
    assert repo.git("ls-tree", "-r", "--name-only", RUN, "inner", ".theta/inner") == ""
    assert_commit(repo, RUN)


def test_a_checkpoint_that_changed_its_place_has_a_store_of_its_own(
    opened: theta.Repository, repo: Repo, folder: Path, tmp_path: Path
) -> None:
    run = theta.Run(opened, "r1")
    run.save_folder(1, folder).result()
    (folder / "a.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    make_model(folder / "model.safetensors", random_tensors({"w": (40, 50), "b": (7,)}, 3))
    run.save_folder(2, folder).result()
    assert contents(resumed(opened).write(tmp_path / "again")) == contents(folder)
    assert_commit(repo, RUN)


def test_the_folder_may_go_while_it_is_saved(opened: theta.Repository, folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    with opened._lock:  # nothing is stored meanwhile
        theta.Run(opened, "r1").save_folder(1, folder)
        shutil.rmtree(folder)
    opened.wait()
    assert contents(resumed(opened).write(tmp_path / "again")) == before


def test_a_file_that_is_written_to_meanwhile_is_not_saved(opened: theta.Repository, folder: Path) -> None:
    with opened._lock:
        saving = theta.Run(opened, "r1").save_folder(1, folder)
        with (folder / "model.safetensors").open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\0")
        info = (folder / "model.safetensors").stat()
        os.utime(folder / "model.safetensors", ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    with pytest.raises(ChangedWhileReadError, match="changed while it was saved"):
        saving.result()
    assert theta.Run(opened, "r1").resume() is None


def test_what_was_begun_is_completed_and_other_files_stay(
    opened: theta.Repository, folder: Path, tmp_path: Path
) -> None:
    theta.Run(opened, "r1").save_folder(1, folder).result()
    before = contents(folder)
    (folder / "model.safetensors").unlink()
    (folder / "notes.txt").write_text("mine")
    inode = (folder / "arguments.bin").stat().st_ino
    resumed(opened).write(folder)
    assert contents(folder) == before | {"notes.txt": b"mine"}
    assert (folder / "arguments.bin").stat().st_ino == inode
    make_model(folder / "model.safetensors", random_tensors({"w": (40, 50), "b": (7,)}, 5))
    (folder / "state.json").unlink()
    with pytest.raises(WouldOverwriteError, match=r"another file is at .*model\.safetensors"):
        resumed(opened).write(folder)
    assert not (folder / "state.json").exists()


def test_nothing_is_written_through_a_link(opened: theta.Repository, folder: Path, tmp_path: Path) -> None:
    theta.Run(opened, "r1").save_folder(1, folder).result()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "inner").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WouldOverwriteError):
        resumed(opened).write(tmp_path / "again")
    assert contents(tmp_path / "elsewhere") == {}


def test_a_step_is_found_by_its_number(opened: theta.Repository) -> None:
    run = theta.Run(opened, "r1")
    for step in (1, 2):
        run.save(step, {"m.safetensors": {"w": np.full(3, step)}}).result()
    earlier = run.resume(1)
    assert earlier is not None
    assert (earlier.step, earlier["m.safetensors"]["w"].numpy()[0]) == (1, 1)
    with pytest.raises(NotFoundError, match="has no step 3"):
        run.resume(3)


def test_no_folder_and_an_empty_one_are_refused(opened: theta.Repository, tmp_path: Path) -> None:
    run = theta.Run(opened, "r1")
    with pytest.raises(NotFoundError, match="there is no folder"):
        run.save_folder(1, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="nothing to save"):
        run.save_folder(1, tmp_path / "empty")


def test_a_link_to_a_file_stands_for_the_file(opened: theta.Repository, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(b"bytes\0")
    (folder / "linked.bin").symlink_to(tmp_path / "outside.bin")
    theta.Run(opened, "r1").save_folder(1, folder).result()
    assert contents(resumed(opened).write(tmp_path / "again"))["linked.bin"] == b"bytes\0"


@pytest.mark.parametrize("kind", ["folder", "nothing", "loop", "fifo", "socket"])
def test_what_would_be_left_out_of_a_folder_is_refused(
    opened: theta.Repository, folder: Path, tmp_path: Path, kind: str
) -> None:
    """Such as a subfolder that is a link: a step without its shards would look whole."""
    odd = folder / "inner" / "odd"
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "shard.bin").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(odd.parent):
        match kind:
            case "folder":
                odd.symlink_to(tmp_path / "shards")
            case "nothing":
                odd.symlink_to(tmp_path / "nowhere")
            case "loop":
                odd.symlink_to(folder)
            case "fifo":
                os.mkfifo(odd)
            case _:
                listening.bind(odd.name)
    with pytest.raises(UsageError, match="inner/odd is "):
        theta.Run(opened, "r1").save_folder(1, folder)
    assert theta.Run(opened, "r1").steps() == []


def test_a_folder_that_cannot_be_read_is_not_left_out(
    opened: theta.Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.scandir

    def closed(place: str) -> Any:
        if os.path.basename(place) == "inner":  # root could read it
            raise PermissionError(13, "Permission denied", place)
        return listed(place)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(NotFoundError, match="inner cannot be read: Permission denied"):
        theta.Run(opened, "r1").save_folder(1, folder)


def test_a_file_of_the_machine_is_saved_beside_arrays(
    opened: theta.Repository, repo: Repo, folder: Path
) -> None:
    files = {"a.safetensors": folder / "model.safetensors", "b.npz": {"x": np.arange(3)}, "state": "{}"}
    opened.save(files, ref="new", wait=True)
    assert sorted(opened.checkpoints("new")) == ["a.safetensors", "b.npz"]
    with pytest.raises(NotFoundError, match="no such file"):
        opened.save({"a": folder / "nothing"}, ref="new")


def test_a_large_file_that_is_no_checkpoint_is_no_blob_of_its_own(
    opened: theta.Repository, repo: Repo, tmp_path: Path
) -> None:
    """Hosts refuse blobs over 10 MiB."""
    data = np.random.default_rng(1).bytes(9 << 20)
    opened.save({"tokenizer.json": data, "small.json": b"{}"}, ref="new", wait=True)
    sizes = [int(line.split()[3]) for line in repo.git("ls-tree", "-r", "-l", "new").splitlines()]
    assert max(sizes) <= 8 << 20
    assert repo.git("show", "new:small.json") == "{}"


def test_drafts_are_stored_and_go(opened: theta.Repository, repo: Repo) -> None:
    run = theta.Run(opened, "r1")
    with opened._lock, run.drafts() as drafts:
        make_model(drafts / "model.safetensors", random_tensors({"w": (4, 5)}))
        run.save_folder(1, drafts)
    assert not drafts.exists()
    opened.wait()
    with resumed(opened).files() as again:
        assert sorted(contents(again)) == ["model.safetensors"]
    assert not again.exists()


def test_drafts_of_a_process_that_was_killed_go_with_the_next_step(
    opened: theta.Repository, repo: Repo
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    scratch = repo.path / ".git" / "theta" / "tmp"
    theirs, ours = (f"tmp_theta_{pid}_{_fs.machine()}_draftsx" for pid in (gone.pid, os.getpid()))
    for name in (theirs, ours):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "optimizer.bin").write_bytes(b"x")
    theta.Run(opened, "r1").save(1, {"m.safetensors": {"w": np.zeros(3)}}).result()
    assert [path.name for path in scratch.glob("*drafts*")] == [ours]
