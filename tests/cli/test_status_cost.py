"""When nothing changed, ``theta status`` neither reads the checkpoint nor imports a compiler."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support import Repo, make_model, random_tensors

WATCHED = """
import json, os, sys
opened = []
def hook(event, args):
    if event in ("open", "os.truncate") and isinstance(args[0], (str, bytes)):
        opened.append(os.fsdecode(args[0]))
sys.addaudithook(hook)
from theta.__main__ import main
code = main()
sys.stdout.flush()
with open(os.environ["REPORT"], "w") as file:
    json.dump([code, opened, sorted(sys.modules)], file)
"""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = Repo.create(tmp_path_factory.mktemp("origin") / "repo")
    repo.afresh = True
    repo.theta("track", "*.safetensors")
    for name in ("m.safetensors", "sub/n.safetensors"):
        make_model(repo.path / name, random_tensors({"a": (40, 50)}))
    repo.theta("add", "-A")
    repo.theta("commit", "-m", "one")
    return repo


@pytest.fixture
def tracked(origin: Repo, tmp_path: Path) -> Repo:
    repo = origin.copy(tmp_path / "repo")
    repo.theta("status")
    return repo


def watched(repo: Repo, tmp_path: Path, *args: str) -> tuple[set[str], set[str], str]:
    """Files opened and modules imported by ``theta ARGS``, and what git ran meanwhile."""
    report, trace = tmp_path / "report", tmp_path / "trace"
    trace.unlink(missing_ok=True)
    done = repo.run(
        sys.executable, "-c", WATCHED, *args, env={"REPORT": str(report), "GIT_TRACE": str(trace)}
    )
    assert done.returncode == 0, done.stderr
    code, opened, modules = json.loads(report.read_text())
    assert code == 0, done.stderr
    return set(opened), set(modules), trace.read_text()


@pytest.mark.parametrize("args", [["status"], ["status", "--short"], ["status", "--json"]], ids=" ".join)
def test_nothing_changed(tracked: Repo, tmp_path: Path, args: list[str]) -> None:
    opened, modules, trace = watched(tracked, tmp_path, *args)
    assert any(name.endswith("stat-cache.json") for name in opened), "the audit hook sees what is opened"
    assert [name for name in opened if name.endswith(".safetensors")] == []
    assert modules & {"numba", "llvmlite", "torch", "rich"} == set()
    assert "filter-process" not in trace, "git was not led to run the filter"


@pytest.mark.parametrize("args", [["ls-files"], ["branch", "new"], ["log"], ["tag", "new"]], ids=" ".join)
def test_commands_that_need_no_kernel(tracked: Repo, tmp_path: Path, args: list[str]) -> None:
    opened, modules, trace = watched(tracked, tmp_path, *args)
    assert [name for name in opened if name.endswith(".safetensors")] == []
    assert modules & {"numba", "llvmlite", "torch"} == set()
    assert "filter-process" not in trace


def test_a_changed_file_is_read(tracked: Repo, tmp_path: Path) -> None:
    make_model(tracked.path / "m.safetensors", random_tensors({"a": (40, 50)}, seed=1))
    opened, _, _ = watched(tracked, tmp_path, "status")
    assert [name for name in opened if name.endswith(".safetensors")] == [str(tracked.path / "m.safetensors")]


def test_a_touched_file_is_read_once(tracked: Repo, tmp_path: Path) -> None:
    (tracked.path / "m.safetensors").touch()
    opened, _, _ = watched(tracked, tmp_path, "status")
    assert [name for name in opened if name.endswith(".safetensors")] == [str(tracked.path / "m.safetensors")]
    tracked.theta("status")
    tracked.run(sys.executable, "-c", "import time; time.sleep(0.06)")
    tracked.theta("status")
    opened, _, trace = watched(tracked, tmp_path, "status")
    assert [name for name in opened if name.endswith(".safetensors")] == []
    assert "filter-process" not in trace
