"""``repo[name]``: checkpoints of revisions, of the index and of the worktree as mappings."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import theta
from tests.api.conftest import BIG, MODEL, Arrays, Story, same
from tests.formats.test_formats_page import cases
from tests.support import Repo, make_model, random_tensors
from theta.errors import (
    ChangedWhileReadError,
    CorruptError,
    FormatError,
    NoSuchTensorError,
    NotFoundError,
    NoWorktreeError,
    UsageError,
)
from theta.porcelain.tensors import sources


@pytest.fixture
def opened(story: Story) -> Iterator[theta.Repository]:
    with theta.open(story.repo.path) as repo:
        yield repo


@pytest.mark.parametrize(
    ("name", "which"),
    [(f"HEAD~1:{MODEL}", "first"), (f"main:{MODEL}", "second"), (f":{MODEL}", "staged"), (MODEL, "worktree")],
)
def test_a_checkpoint_is_a_mapping_of_its_tensors(
    opened: theta.Repository, story: Story, name: str, which: str
) -> None:
    expected: Arrays = getattr(story, which)
    checkpoint = opened[name]
    assert isinstance(checkpoint, Mapping)
    assert set(checkpoint) == set(expected)
    assert checkpoint.nbytes == sum(array.nbytes for array in expected.values())
    for tensor_name, array in expected.items():
        tensor = checkpoint[tensor_name]
        assert (tensor.dtype, tensor.shape, tensor.nbytes) == (array.dtype, array.shape, array.nbytes)
        assert same(tensor.numpy(), array)
        assert tensor.tobytes() == array.tobytes()
    assert all(same(array, expected[key]) for key, array in checkpoint.load().items())
    assert set(checkpoint.load("layers.*")) == {BIG, "layers.0.bias"} == set(checkpoint.matching("layers.*"))


def test_what_is_told_of_it(opened: theta.Repository) -> None:
    checkpoint = opened[f"HEAD~1:{MODEL}"]
    assert checkpoint.metadata == {"note": "first"}
    assert checkpoint.formats == {"safetensors"}
    assert checkpoint.label == f"HEAD~1:{MODEL}"
    assert repr(checkpoint) == f"Checkpoint('HEAD~1:{MODEL}', 8 tensors, 18.0 MB)"
    assert repr(checkpoint[BIG][:2]) == f"LazyTensor('{BIG}', f32 [2, 1500])"
    assert repr(opened) == f"Repository('{opened.path}')"
    assert checkpoint["half"].dtype == ml_dtypes.bfloat16
    assert checkpoint["half"].dtype_name == "bf16"
    assert opened.checkpoints() == [MODEL] == opened.checkpoints("")


def test_numpy_takes_a_tensor_for_an_array(opened: theta.Repository, story: Story) -> None:
    tensor = opened[f"main:{MODEL}"]["three"]
    assert same(np.asarray(tensor), story.second["three"])
    assert np.asarray(tensor, np.float64).dtype == np.float64
    assert np.array_equal(np.add(tensor[0], 1), story.second["three"][0] + 1)
    with pytest.raises(ValueError, match="new array"):
        np.array(tensor, copy=False)
    array = tensor.numpy()
    array[...] = 0
    assert same(tensor.numpy(), story.second["three"])


def test_a_tensor_that_is_not_there_is_a_key_error(opened: theta.Repository) -> None:
    checkpoint = opened[f"main:{MODEL}"]
    with pytest.raises(KeyError):
        checkpoint["nope"]
    with pytest.raises(NoSuchTensorError, match=f"^main:{MODEL} has no tensor nope\nhint: list"):
        checkpoint["nope"]
    assert "nope" not in checkpoint
    assert checkpoint.get("nope") is None


@pytest.mark.parametrize(
    "name",
    ["gone:model.safetensors", "HEAD:gone.safetensors", ":gone.safetensors", "gone.safetensors", "HEAD:"],
)
def test_what_is_not_there_is_not_found(opened: theta.Repository, name: str) -> None:
    with pytest.raises(NotFoundError):
        opened[name]


def test_a_file_without_tensors(opened: theta.Repository) -> None:
    with pytest.raises(FormatError, match=r"code\.py"):
        opened["code.py"]
    with pytest.raises(NotFoundError, match="there is no checkpoint"):
        opened["HEAD:code.py"]


def test_the_current_directory_is_not_needed(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(story.repo.path / ".git")
    below = theta.open("../")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with below as repo:
        assert repo.path == story.repo.path
        assert same(repo[MODEL]["three"].numpy(), story.worktree["three"])
        assert same(repo[f":{MODEL}"]["three"].numpy(), story.staged["three"])
        assert [item.path for item in repo.diff()] == [MODEL]
        assert repo.log(limit=1)[0].subject == "second"
        assert repo.status(MODEL).rows[0].path == MODEL


def test_a_file_that_changes_under_it(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    make_model(repo.path / MODEL, random_tensors({"a": (4, 4)}))
    with theta.open(repo.path) as opened:
        tensor = opened[MODEL]["a"]
        tensor.numpy()
        make_model(repo.path / MODEL, random_tensors({"a": (4, 4)}, 1))
        with pytest.raises(ChangedWhileReadError):
            tensor.numpy()
        assert same(opened[MODEL]["a"].numpy(), random_tensors({"a": (4, 4)}, 1)["a"])


def test_what_is_open_stays_what_it_was(tmp_path: Path) -> None:
    """A commit, a repack that removes the packs, and a branch that moves change nothing."""
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    versions = [random_tensors({"a": (64, 64), "b": (3,)}, seed) for seed in (0, 1)]
    for version in versions:
        make_model(repo.path / MODEL, version)
        repo.theta("add", ".")
        repo.theta("commit", "-q", "-m", "next")
    with theta.open(repo.path) as opened:
        checkpoint = opened[f"main:{MODEL}"]
        repo.git("update-ref", "refs/heads/main", "HEAD~1")
        repo.git("gc", "-q")
        assert same(checkpoint["a"].numpy(), versions[1]["a"])
        assert same(opened[f"main:{MODEL}"]["a"].numpy(), versions[0]["a"])


def test_a_manifest_in_the_worktree_stands_for_its_file(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    tensors = random_tensors({"a": (8, 8)})
    make_model(repo.path / MODEL, tensors)
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "model")
    (repo.path / MODEL).write_text(repo.git("show", f"HEAD:{MODEL}") + "\n")
    with theta.open(repo.path) as opened:
        assert same(opened[MODEL]["a"].numpy(), tensors["a"])


def test_a_damaged_chunk_is_an_error_that_names_the_tensor(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / MODEL, random_tensors({"good": (64, 64), "bad": (300, 300)}))
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "model")
    (pack,) = (repo.path / ".git/objects/pack").glob("*.pack")
    data = bytearray(pack.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 64] = bytes(64)
    os.chmod(pack, 0o644)
    pack.write_bytes(data)
    with theta.open(repo.path) as opened:
        checkpoint = opened[f"HEAD:{MODEL}"]
        checkpoint["good"].numpy()
        with pytest.raises(CorruptError, match=f"^HEAD:{MODEL}: .*bad"):
            checkpoint["bad"].numpy()


def test_closing(story: Story) -> None:
    with theta.open(story.repo.path) as repo:
        stored, file = repo[f"HEAD:{MODEL}"], repo[MODEL]
        with repo[MODEL] as third:
            tensor = third["three"]
        with pytest.raises(UsageError, match="closed"):
            tensor.numpy()
        file["three"].numpy()
    for checkpoint in (stored, file):
        with pytest.raises(UsageError, match="closed"):
            checkpoint["three"].numpy()
    with pytest.raises(UsageError, match="closed"):
        repo.status()
    with pytest.raises(UsageError, match="closed"):
        repo[MODEL]
    repo.close()


def test_files_are_closed_when_nobody_holds_them(story: Story) -> None:
    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    with theta.open(story.repo.path) as repo:
        before = descriptors()
        kept = [repo[MODEL]["three"] for _ in range(20)]
        assert descriptors() >= before + 20
        assert same(kept[0].numpy(), story.worktree["three"])
        kept.clear()
        assert descriptors() == before


def test_threads_share_a_repository(opened: theta.Repository, story: Story) -> None:
    checkpoint = opened[f"HEAD:{MODEL}"]

    def work(number: int) -> bool:
        rows = slice(100 * number, 100 * number + 50)
        whole = opened[f"HEAD~1:{MODEL}"]["three"].numpy()
        found = checkpoint[BIG][rows].numpy()
        return same(found, story.second[BIG][rows]) and same(whole, story.first["three"])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(12)))


def test_a_bare_repository(story: Story, tmp_path: Path) -> None:
    story.repo.git("clone", "-q", "--bare", str(story.repo.path), str(tmp_path / "bare.git"))
    with theta.open(tmp_path / "bare.git") as repo:
        assert same(repo[f"main:{MODEL}"]["three"].numpy(), story.second["three"])
        assert [item.subject for item in repo.log(limit=2)] == ["second", "first"]
        assert [item.path for item in repo.diff("main~1", "main")] == [MODEL]
        for ask in (lambda: repo[MODEL], repo.status, lambda: repo.diff("main")):
            with pytest.raises(NoWorktreeError):
                ask()


def test_a_sharded_model_is_one_checkpoint(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    tensors = random_tensors({"a": (300, 300), "b": (300, 300), "c": (5,)})
    make_model(repo.path / "whole.safetensors", tensors)
    repo.theta("convert", "whole.safetensors", "-o", "m.safetensors", "--max-shard-size", "400kB")
    (repo.path / "whole.safetensors").unlink()
    repo.theta("add", ".")
    repo.git("add", ".")
    repo.theta("commit", "-q", "-m", "shards")
    with theta.open(repo.path) as opened:
        for prefix in ("HEAD:", ":", ""):
            for name in ("m.safetensors", "m.safetensors.index.json"):
                checkpoint = opened[prefix + name]
                assert set(checkpoint) == set(tensors)
                assert all(same(checkpoint[key].numpy(), array) for key, array in tensors.items())
        repo.git("rm", "-q", "--cached", "m.safetensors.index.json")
        assert set(opened[":m.safetensors"]) == set(tensors)


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with a file of every format."""
    repo = Repo.create(tmp_path_factory.mktemp("formats") / "repo")
    repo.theta("track", *{f"*{Path(case.path).suffix}" for case in cases()})
    for case in cases():
        (repo.path / case.path).parent.mkdir(exist_ok=True)
        case.put(repo.path / case.path, 1)
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "all")
    return repo


@pytest.mark.parametrize("path", [case.path for case in cases()])
def test_every_format(formats: Repo, path: str) -> None:
    """The tensors of the commit are those that theta's readers find in the file, lazily or not."""
    named = sources.Named(None, path)
    with theta.open(formats.path) as repo, sources.opened(named, formats.path) as model:
        if path.endswith(".distcp"):  # which has its names from a file beside it
            found = [tensor.tobytes() for tensor in repo[f"HEAD:{path}"].values()]
            assert found == [b"".join(value.chunks()) for value in model.values.values()]
            return
        for checkpoint in (repo[f"HEAD:{path}"], repo[path]):
            assert checkpoint.formats == model.formats
            for name, value in model.values.items():
                data = b"".join(value.chunks())
                tensor = checkpoint[name]
                assert tensor.tobytes() == data
                assert (tensor.dtype_name, tensor.shape) == (value.dtype, value.shape)
                if value.shape and value.shape[0] > 2:
                    assert tensor[1:2].tobytes() == tensor.numpy()[1:2].tobytes()
            assert set(checkpoint) == set(model.values)


def test_packed_types_have_bytes_and_no_array(tmp_path: Path) -> None:
    """Safetensors' F4: two elements in a byte, which no numpy has."""
    repo = Repo.create(tmp_path / "repo")
    head = b'{"w":{"dtype":"F4","shape":[4,4],"data_offsets":[0,8]}}'
    (repo.path / "f4.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(range(8)))
    with theta.open(repo.path) as opened:
        tensor = opened["f4.safetensors"]["w"]
        assert (tensor.shape, tensor.nbytes, tensor.dtype_name) == ((4, 4), 8, "f4")
        assert tensor.tobytes() == bytes(range(8))
        for ask in (tensor.numpy, lambda: tensor.dtype, lambda: tensor[0]):
            with pytest.raises(FormatError, match="numpy has no f4"):
                ask()
