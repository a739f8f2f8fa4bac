"""Equal weights in another container: told in words, and stored as a new skeleton only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import Repo, make_model, random_tensors
from theta.porcelain.stage import staging
from theta.porcelain.workspace.session import Session
from theta.store.format import skeleton as skeletons

STORY = Path(__file__).parent / "data" / "story"
WORDS = "same weights, different container"
TENSORS = random_tensors({"a": (64, 64), "b": (16,)})


def torch_twice(path: Path, version: int) -> None:
    """``torch.save`` under two names and in two protocols."""
    path.write_bytes((STORY / f"{version}.same.pt").read_bytes())


def metadata_reordered(path: Path, version: int) -> None:
    pairs = [("format", "pt"), ("step", "4000"), ("note", "x" * 50)]
    make_model(path, TENSORS, dict(pairs if version == 1 else pairs[::-1]))


def tensors_reordered(path: Path, version: int) -> None:
    names = list(TENSORS) if version == 1 else list(TENSORS)[::-1]
    make_model(path, {name: TENSORS[name] for name in names})


def npz_members_reordered(path: Path, version: int) -> None:
    names = list(TENSORS) if version == 1 else list(TENSORS)[::-1]
    arrays: dict[str, Any] = {name: TENSORS[name] for name in names}
    np.savez(path, **arrays)


CASES: dict[str, Callable[[Path, int], None]] = {
    "m.pt": torch_twice,
    "m.safetensors": metadata_reordered,
    "order.safetensors": tensors_reordered,
    "m.npz": npz_members_reordered,
}


def test_it_is_told_and_costs_its_skeleton(repo: Repo) -> None:
    repo.theta("track", "*.pt", "*.safetensors", "*.npz")
    for name, put in CASES.items():
        put(repo.path / name, 1)
    repo.theta("add", *CASES)
    repo.theta("commit", "-m", "first")
    for name, put in CASES.items():
        put(repo.path / name, 2)
    unstaged, compared = repo.theta("status").stdout, repo.theta("diff").stdout
    session = Session.here(repo.path)
    with session.change():
        added = {item.path: item for item in staging.add_files(session, CASES)}
    staged, done = repo.theta("status").stdout, repo.theta("commit", "-m", "second").stdout
    for name in CASES:
        assert f"{name}  ({WORDS})" in unstaged and f"{name}  ({WORDS})" in staged
        assert f"{name}: {WORDS}" in compared and f"{name}: {WORDS}" in done
        skeleton = len(skeletons.read(session.objects, added[name].manifest.skeleton).literal)
        assert added[name].new == () and 0 < added[name].stored < 4096 + skeleton
    for item in json.loads(repo.theta("diff", "--json", "HEAD~1", "HEAD").stdout)["theta.diff/v1"]:
        assert (item["container"], item["tensors"], item["unchanged"]) == (True, [], 2)
