"""The workers of an engine average, compare and check as threads do."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.compat.inprocess import theta
from tests.engine import factories
from tests.engine.small_parts import spread
from tests.engine.test_engines import HERE, MODEL, near, normal
from tests.support import Repo, read_model, sha256
from theta.engine import average_parts, restore_parts
from theta.git.repository import Repository
from theta.porcelain.check import gate, value_parts
from theta.porcelain.check.check_rules import CheckRules
from theta.porcelain.check.gate import CheckRequest, CheckResult
from theta.porcelain.look import comparison, number_parts
from theta.porcelain.look.comparison import DiffRequest
from theta.porcelain.look.diffing import Sides
from theta.porcelain.workspace.session import Session


@pytest.fixture(autouse=True)
def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread files of any size, in many parts."""
    spread(monkeypatch, 40_000)


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


def test_a_mean_is_written_by_workers_as_by_threads(stored: Repo, tmp_path: Path) -> None:
    found = []
    for engine in ("threads", f"{HERE}asked"):
        repo = stored.copy(tmp_path / engine.rpartition(":")[2])
        theta(repo, "--engine", engine, "average", "v0", "v1", "v2", "-o", "mean.safetensors", code=2)
        repo.git("checkout", "-q", "-b", "two", "v0")
        arrays = {f"layers.{k}.w": normal(k + 50, 64, 128) for k in range(7)}
        arrays |= {"layers.7.w": read_model(repo.path / MODEL)["layers.7.w"], "norm": normal(59, 64)}
        save_file(arrays | {"more": normal(60, 8, 16)}, repo.path / MODEL)
        theta(repo, "commit", "-qam", "two")
        theta(repo, "--engine", engine, "average", "v0", "two", "-o", "mean.safetensors")
        found.append(sha256(repo.path / "mean.safetensors"))
        assert repo.git("status", "--porcelain") == "?? mean.safetensors"
        assert not list((repo.path / ".git/theta").glob("tmp/*"))
    assert found[0] == found[1]
    assert {average_parts.write, restore_parts.restore} == {*factories.last.asked}
    assert factories.last.passed < 2_000 * len(factories.last.asked)


RULES = CheckRules(frozen=("norm",), budgets={"layers.*": 0.001})


def _checked(repo: Repo, engine: str, *names: str) -> tuple[CheckResult, int]:
    """The result, and the bytes that the progress was told of."""
    repo.git("config", "theta.engine", engine)
    session, done = Session(Repository.discover(repo.path)), _Noted()
    return gate.check(session, CheckRequest(names, rules=RULES), repo.path, done), done.nbytes


def _faulty(repo: Repo) -> None:
    """Plant faults of values, among them two tensors that are to be one."""
    arrays = {f"layers.{k}.w": normal(k, 64, 128) for k in range(8)} | {"norm": normal(9, 64)}
    arrays["layers.2.w"][3, 4] = np.nan
    arrays["layers.3.w"][:] = 0
    arrays["layers.4.w"][0, 0] = np.inf
    arrays |= {"model.embed_tokens.weight": normal(40, 12, 8), "lm_head.weight": normal(41, 12, 8)}
    save_file(arrays, repo.path / MODEL)
    repo.write("config.json", json.dumps({"tie_word_embeddings": True}))


@pytest.mark.parametrize("where", ["worktree", "commit", "manifest"])
def test_workers_check_as_threads_do(stored: Repo, tmp_path: Path, where: str) -> None:
    repo = stored.copy(tmp_path / "twin")
    _faulty(repo)
    names: tuple[str, ...] = ()
    if where != "worktree":
        theta(repo, "add", ".")
        theta(repo, "commit", "-qm", "faulty")
        names = ("HEAD",)
    if where == "manifest":
        (repo.path / MODEL).write_text(f"{repo.git('show', f'HEAD:{MODEL}')}\n")
        names = (MODEL,)
    by_threads = _checked(repo, "threads", *names)
    assert {one.rule for one in by_threads[0].findings} >= {"nan", "inf", "zero", "tie"}
    assert where == "manifest" or {one.rule for one in by_threads[0].findings} >= {"frozen", "change"}
    assert _checked(repo, f"{HERE}asked", *names) == by_threads
    assert {*factories.last.asked} == {value_parts.compute}
    assert factories.last.passed < 4_000 * len(factories.last.asked)


def test_what_a_worker_cannot_read_is_told_as_by_threads(stored: Repo, tmp_path: Path) -> None:
    """There are findings of the tensors before it, and none of those after it."""
    repo = stored.copy(tmp_path / "twin")
    _faulty(repo)
    theta(repo, "add", ".")
    theta(repo, "commit", "-qm", "faulty")
    manifest = Session(Repository.discover(repo.path)).at("HEAD").manifest(MODEL)
    assert manifest is not None
    for line in manifest.lines[5:7]:
        _lose(repo, line.tree)
    by_threads, _ = _checked(repo, "threads", "HEAD")
    assert {one.rule for one in by_threads.findings} >= {"unreadable", "zero"}
    assert _checked(repo, f"{HERE}asked", "HEAD")[0] == by_threads


def _lose(repo: Repo, tree: str) -> None:
    """Unpack all objects, and remove the values of a tensor."""
    packs = repo.path / ".git/objects/pack"
    for pack in packs.glob("*.pack"):
        moved = pack.rename(repo.path / ".git" / pack.name)
        pack.with_suffix(".idx").unlink()
        with moved.open("rb") as file:
            subprocess.run(["git", "unpack-objects", "-q"], cwd=repo.path, stdin=file, check=True)
    sizes = repo.git("ls-tree", "--format=%(objectsize) %(objectname)", tree).split("\n")
    oid = max(sizes, key=lambda line: int(line.split()[0])).split()[1]
    (repo.path / ".git/objects" / oid[:2] / oid[2:]).unlink(missing_ok=True)
