"""The workers of an engine average and compare as threads do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from tests.compat.inprocess import theta
from tests.engine import factories
from tests.engine.test_engines import HERE, MODEL, near, normal
from tests.support import Repo
from theta import parallel
from theta.engine import average_parts, rounds
from theta.git.repository import Repository
from theta.porcelain.look import comparison, number_parts
from theta.porcelain.look.comparison import DiffRequest
from theta.porcelain.look.diffing import Sides
from theta.porcelain.workspace.session import Session


@pytest.fixture(autouse=True)
def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread files of any size, in many parts."""
    monkeypatch.setattr(parallel, "WORTH_SPREADING", 1)
    monkeypatch.setattr(rounds, "SMALLEST", 40_000)
    monkeypatch.setattr(rounds, "LARGEST", 40_000)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Three versions of a model, tagged v0 to v2; the last one has a tensor that grew."""
    repo = Repo.create(tmp_path_factory.mktemp("stored") / "r")
    theta(repo, "track", "*.safetensors")
    arrays = {f"layers.{k}.w": normal(k, 64, 128) for k in range(8)} | {"norm": normal(9, 64)}
    for step in range(3):
        save_file(arrays | ({"more": normal(10, 8 + step, 16)} if step != 1 else {}), repo.path / MODEL)
        theta(repo, "add", ".")
        theta(repo, "commit", "-qm", str(step))
        repo.git("tag", f"v{step}")
        arrays = {name: near(old, 20 + k) for k, (name, old) in enumerate(arrays.items())}
    return repo


class _Noted:
    """A progress that adds up."""

    nbytes = 0

    def step(self, _verb: str, _total: int, _of: str = "") -> None:
        self.nbytes = 0

    def __call__(self, nbytes: int) -> None:
        self.nbytes += nbytes


def _numbers(repo: Repo, engine: str, new: str | None) -> list[object]:
    repo.git("config", "theta.engine", engine)
    session = Session(Repository.discover(repo.path))
    request = DiffRequest(Sides("v0", new), numbers=True)
    (item,) = comparison.diff(session, request).checkpoints
    watched: list[str] = []
    done = _Noted()
    found = comparison.tensors(session, request, item, done, lambda change, _: watched.append(change.name))
    assert sorted(watched) == sorted(change.name for change in found.tensors)
    assert done.nbytes == sum(change.new.nbytes for change in found.tensors if change.new is not None)
    return [{name: asdict(one) for name, one in sorted(found.numbers.items())}, found.tensors]


@pytest.mark.parametrize("new", ["v2", None])
def test_workers_compare_as_threads_do(stored: Repo, tmp_path: Path, new: str | None) -> None:
    repo = stored.copy(tmp_path / "twin")
    save_file({"norm": normal(30, 64), "layers.0.w": normal(31, 64, 128)}, repo.path / MODEL)
    by_threads = _numbers(repo, "threads", new)
    assert _numbers(repo, f"{HERE}asked", new) == by_threads
    assert set(factories.last.asked) == {number_parts.compute}
    assert factories.last.passed < 4_000 * len(factories.last.asked)


def test_a_mean_by_workers_is_the_mean_by_threads(stored: Repo, tmp_path: Path) -> None:
    trees = []
    for engine in ("threads", f"{HERE}asked"):
        repo = stored.copy(tmp_path / engine.rpartition(":")[2])
        repo.git("checkout", "-q", "-b", "two", "v0")
        arrays = {f"layers.{k}.w": normal(k + 50, 64, 128) for k in range(8)} | {"norm": normal(59, 64)}
        save_file(arrays | {"more": normal(60, 8, 16)}, repo.path / MODEL)
        theta(repo, "commit", "-qam", "two")
        theta(repo, "--engine", engine, "average", "v0", "two", "--commit")
        trees.append(repo.git("rev-parse", "HEAD^{tree}"))
        assert not list((repo.path / ".git/objects/pack").glob("*.keep"))
    assert trees[0] == trees[1]
    assert average_parts.compute in factories.last.asked
    told = json.loads(theta(repo, "fsck", "--json").out)
    assert told["theta.fsck/v1"]["problems"] == []
