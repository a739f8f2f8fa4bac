"""``theta export`` and ``theta cat``: tensors of any revision in files, and on the screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.cli.checks import refused
from tests.support import Repo, make_model, mutate, random_tensors, sha256

TENSORS = random_tensors({"a.w": (30, 40), "a.b": (40,), "c": (3,)}, seed=4)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two versions of a checkpoint."""
    repo = Repo.create(tmp_path_factory.mktemp("export") / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "sub" / "m.safetensors", TENSORS)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "one")
    mutate(repo.path / "sub" / "m.safetensors", "c", lambda value: value * 2)
    repo.theta("commit", "-a", "-m", "two")
    return repo


def test_under_its_own_suffix_it_is_the_file_itself(repo: Repo, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    repo.theta("export", "HEAD:sub/m.safetensors", "-o", str(out))
    assert sha256(out) == sha256(repo.path / "sub" / "m.safetensors")
    refused(repo.theta("export", "HEAD~1:sub/m.safetensors", "-o", str(out), code=None), 14, "there already")
    repo.theta("export", "HEAD~1:sub/m.safetensors", "-o", str(out), "--force")
    assert (load_file(out)["c"] == TENSORS["c"]).all()


def test_a_glob_chooses_tensors(repo: Repo, tmp_path: Path) -> None:
    out = tmp_path / "part.npz"
    repo.theta("export", "HEAD~1:sub/m.safetensors#a.*", "-o", str(out))
    with np.load(out) as found:
        assert sorted(found) == ["a.b", "a.w"]
        assert (found["a.w"] == TENSORS["a.w"]).all()
    part = tmp_path / "part.safetensors"
    repo.theta("export", "HEAD:sub/m.safetensors#c", "-o", str(part))
    assert list(load_file(part)) == ["c"]


def test_shards(repo: Repo, tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    done = repo.theta("export", "HEAD:sub/m.safetensors", "-o", str(out), "--max-shard-size", "1kB")
    names = ["s-00001-of-00002.safetensors", "s-00002-of-00002.safetensors", "s.safetensors.index.json"]
    assert done.stdout == f"3 tensors: {', '.join(names)}\n"
    loaded = {key: value for name in names[:2] for key, value in load_file(tmp_path / name).items()}
    assert loaded.keys() == TENSORS.keys() and (loaded["a.w"] == TENSORS["a.w"]).all()


def test_a_tensor_is_printed_or_saved(repo: Repo, tmp_path: Path) -> None:
    done = repo.theta("cat", "HEAD~1:sub/m.safetensors#c")
    assert done.stdout == f"{TENSORS['c']}\n"
    repo.theta("cat", "HEAD:sub/m.safetensors#a.w", "-o", str(tmp_path / "w.npy"))
    assert (np.load(tmp_path / "w.npy") == TENSORS["a.w"]).all()


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["export", "sub/m.safetensors", "-o", "x.npz"], 2, "REV:PATH"),
        (["export", "HEAD:m.safetensors", "-o", "x.npz"], 13, "m.safetensors"),
        (["export", "nowhere:sub/m.safetensors", "-o", "x.npz"], 13, "nowhere"),
        (["export", "HEAD:sub/m.safetensors", "-o", "x.h5"], 2, "x.h5"),
        (["cat", "HEAD:sub/m.safetensors"], 2, "names no tensor"),
        (["cat", "HEAD:sub/m.safetensors#zz"], 13, "zz"),
        (["cat", "HEAD:sub/m.safetensors#c", "-o", "x.txt"], 2, "x.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals(repo: Repo, args: list[str], code: int, word: str) -> None:
    refused(repo.theta(*args, code=None), code, word)
