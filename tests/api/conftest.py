"""One repository that the tests of the API read: two versions of a checkpoint of many dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import theta
from tests.compat.inprocess import started
from tests.support import Repo, make_model, random_tensors

MODEL = "model.safetensors"
BIG = "layers.0.weight"
"""A tensor of four chunks: 3000 rows of 6000 bytes, 699 in a chunk."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Story:
    """A repository, and the values of its checkpoint in HEAD~1, HEAD, the index and the worktree."""

    repo: Repo
    first: Arrays
    second: Arrays
    staged: Arrays
    worktree: Arrays


def first_version() -> Arrays:
    """Tensors of several dtypes and shapes; ``BIG`` is larger than a few chunks."""
    found: Arrays = random_tensors({BIG: (3000, 1500), "layers.0.bias": (7,), "three": (3, 4, 5)})
    found["half"] = found["three"].astype(ml_dtypes.bfloat16)
    found["eighth"] = found["three"].astype(ml_dtypes.float8_e4m3fn)
    found["steps"] = np.arange(11, dtype=np.int64)
    found["scalar"] = np.array(2.5, np.float64)
    found["nothing"] = np.empty((0, 4), np.float32)
    return found


def shifted(arrays: Arrays, name: str, by: float) -> Arrays:
    """``arrays`` with ``by`` added to one of them."""
    return arrays | {name: (arrays[name] + by).astype(arrays[name].dtype)}


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Commits ``first`` and ``second``, an index that differs, and a worktree that differs again."""
    repo = Repo.create(tmp_path_factory.mktemp("api") / "repo")
    first = first_version()
    second = shifted(first, BIG, 1e-3)
    staged, worktree = shifted(second, "three", 1.0), shifted(second, "three", 2.0)
    repo.theta("track", "*.safetensors")
    for version, message in ((first, "first"), (second, "second")):
        make_model(repo.path / MODEL, version, {"note": message})
        repo.theta("add", ".")
        repo.theta("commit", "-q", "-m", message)
    make_model(repo.path / MODEL, staged)
    repo.theta("add", MODEL)
    make_model(repo.path / MODEL, worktree)
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    return Story(repo, first, second, staged, worktree)


def same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Return whether two arrays have one dtype, one shape and the same bits."""
    return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


def arrays_of(place: Path) -> Arrays:
    """The tensors of a safetensors file, by the library of that name."""
    from safetensors.numpy import load_file

    found: Arrays = load_file(place)
    return found


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """One commit of a tracked checkpoint."""
    return started(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def opened(repo: Repo) -> Iterator[theta.Repository]:
    """``repo`` as a program has it."""
    with theta.open(repo.path) as found:
        yield found
