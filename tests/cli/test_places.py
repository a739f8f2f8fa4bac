"""D3, D4: what is written and read stays where it belongs, fits, and is a file."""

from __future__ import annotations

import os
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.checks import never_a_bug, refused
from tests.support import Repo, make_model, random_tensors, read_model, sha256
from tests.support.repos import describe
from theta import _fs
from theta.errors import ExitCode, NoSpaceError
from theta.formats.values import Value
from theta.porcelain.tensors import catting, converting

MODEL = "m.safetensors"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with one committed checkpoint."""
    repo = Repo.create(tmp_path_factory.mktemp("places") / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / MODEL, random_tensors({"a": (40, 50), "b": (3,)}))
    repo.theta("add", MODEL)
    repo.theta("commit", "-q", "-m", "one")
    return repo


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    """A copy that a test may change."""
    return template.copy(tmp_path / "repo")


EVIL = ["../../../evil", "/abs", "a/../../b", "\\\\server\\x", "..\\evil", "C:\\evil", "C:evil"]


@pytest.mark.parametrize("name", EVIL)
def test_d4_members_of_an_npz_stay_inside(repo: Repo, name: str) -> None:
    make_model(repo.path / "evil.safetensors", {name: np.ones(4, np.float32)})
    refused(
        repo.theta("convert", "evil.safetensors", "-o", "out.npz", code=None),
        ExitCode.FAILED,
        "no member can be",
    )
    repo.theta("add", "evil.safetensors")
    repo.theta("commit", "-q", "-m", "evil")
    refused(
        repo.theta("export", "HEAD:evil.safetensors", "-o", "out.npz", code=None),
        ExitCode.FAILED,
        "no member",
    )
    assert not (repo.path / "out.npz").exists()


def test_d4_members_of_an_npz_may_have_folders(repo: Repo) -> None:
    make_model(
        repo.path / "fine.safetensors", {"a/b.c..d": np.ones(4, np.float32), "...": np.ones(1, np.float32)}
    )
    repo.theta("convert", "fine.safetensors", "-o", "out.npz")
    with zipfile.ZipFile(repo.path / "out.npz") as archive:
        assert archive.namelist() == ["a/b.c..d.npy", "....npy"]


def test_d4_a_committed_link_is_not_followed_out_of_the_repository(repo: Repo, tmp_path: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    make_model(tmp_path / "secret.safetensors", {"w": np.ones(4, np.float32)})
    (repo.path / shard).symlink_to("../secret.safetensors")
    (repo.path / "folder").symlink_to("..")
    repo.write("model.safetensors.index.json", f'{{"weight_map": {{"w": "{shard}"}}}}')
    convert = ["convert", "model.safetensors.index.json", "-o", "out.npz"]
    repo.theta(*convert)  # the user's own link
    (repo.path / "out.npz").unlink()
    repo.git("add", shard, "folder", "model.safetensors.index.json")
    refused(repo.theta(*convert, code=None), ExitCode.USAGE, "leads out of it")
    inside = ["convert", "folder/secret.safetensors", "-o", "out.npz"]
    refused(repo.theta(*inside, code=None), ExitCode.USAGE, "leads out of it")
    assert not (repo.path / "out.npz").exists()


def test_d4_a_download_cache_of_links_is_read(tmp_path: Path) -> None:
    """The folders of huggingface_hub: a snapshot's files are links to blobs."""
    cache = tmp_path / "models--x--y"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    shard = "model-00001-of-00001.safetensors"
    make_model(cache / "blobs" / "1", {"w": np.ones(4, np.float32)})
    (snapshot / shard).symlink_to("../../blobs/1")
    index = cache / "blobs" / "2"
    index.write_text(f'{{"weight_map": {{"w": "{shard}"}}}}')
    (snapshot / "model.safetensors.index.json").symlink_to("../../blobs/2")
    Repo(snapshot).theta("convert", "model.safetensors.index.json", "-o", str(tmp_path / "out.safetensors"))
    assert list(read_model(tmp_path / "out.safetensors")) == ["w"]


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))


SPECIAL: dict[str, Callable[[Path], object]] = {"a pipe": os.mkfifo, "a socket": _socket}


@pytest.mark.parametrize("kind", SPECIAL)
def test_d4_special_files_are_refused_and_never_waited_for(
    repo: Repo, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo.path)  # the address of a socket is short
    SPECIAL[kind](Path("special.safetensors"))
    refused(
        repo.theta("add", "special.safetensors", code=None), ExitCode.USAGE, "neither a file nor a folder"
    )
    for args in (["add", "."], ["status"], ["diff"], ["scan", "special.safetensors"]):
        never_a_bug(repo.theta(*args, code=None))
    (repo.path / MODEL).unlink()
    SPECIAL[kind](Path(MODEL))
    for args in (["status"], ["add", MODEL], ["commit", "-am", "x"], ["convert", MODEL, "-o", "x.npz"]):
        never_a_bug(repo.theta(*args, code=None))
    assert repo.git("log", "-1", "--format=%s") == "one"
    repo.theta("restore", MODEL)
    assert sha256(repo.path / MODEL) != ""


def _constant(gigabytes: int) -> Value:
    return Value("u8", (gigabytes << 30,), lambda: iter(()))


def test_d3_cat_looks_at_the_room_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fs, "free_space", lambda path: 24 << 30)
    with pytest.raises(NoSpaceError, match=r"25\.8 GB free, and 26\.8 GB"):
        catting.save(_constant(25), tmp_path / "x.npy", force=False)
    with pytest.raises(NoSpaceError):
        model = converting.Model({"w": _constant(25)}, frozenset({"npy"}))
        converting.write(model, tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", range(1, 6))
def test_d3_a_killed_command_leaves_nothing_in_the_folder(repo: Repo, tmp_path: Path, at: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for args in (["cat", f"HEAD:{MODEL}#a", "-o"], ["export", f"HEAD:{MODEL}", "-o"]):
        out = folder / ("x.npy" if args[0] == "cat" else "x.npz")
        done = repo.theta(*args, str(out), code=None, env={"THETA_CRASH_AT": str(at)})
        left = [place.name for place in folder.iterdir()]
        assert left in ([], [out.name]), describe(done)
        assert done.returncode in (0, -9), describe(done)
        shutil.rmtree(folder)
        folder.mkdir()
