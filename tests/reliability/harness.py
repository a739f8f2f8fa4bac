"""Runs theta commands that die at a chosen step, and looks at what they leave behind.

A server process imports theta once and forks for each command; that is ten times faster than
starting Python each time, and a fork that is killed is as dead as any other process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support import Repo, make_model, random_tensors, sha256
from tests.support.environment import dated
from tests.support.repos import describe

SHAPES = {"emb": (60, 16), "layers.0.w": (16, 16), "layers.1.w": (16, 16), "norm": (16,)}
FILE = "m.safetensors"

SERVER = """
import json, os, sys
import numpy, theta.porcelain.merging, theta.porcelain.committing, theta.porcelain.restoring, theta.cli.merge
from theta import _fs
from theta.cli.app import run
from theta.codecs import dense
dense.encode(numpy.random.default_rng(0).standard_normal(5000).astype("f4").tobytes(), "f32")
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(job["cwd"])
        os.environ.update(job["env"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        out = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1); os.dup2(out, 2)
        steps = [0]
        if job["count"]:
            def step(operation, path): steps[0] += 1
            _fs.on_step = step
        code = run(job["args"])
        sys.stdout.flush(); sys.stderr.flush()
        if job["count"]:
            with open(job["count"], "w") as file: file.write(str(steps[0]))
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runner:
    """A theta that is loaded once; ``run`` forks it."""

    def __init__(self, place: Path) -> None:
        self.log = place / "theta.log"
        self._count = place / "steps"
        command = [sys.executable, "-c", SERVER]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, repo: Repo, *args: str, crash_at: int = 0, count: bool = False) -> int:
        """The exit code of ``theta ARGS``; -9 where it died at disk step ``crash_at``."""
        repo.ticks += 1
        env: dict[str, str] = dated(repo.ticks)
        if crash_at:
            env["THETA_CRASH_AT"] = str(crash_at)
        job: dict[str, Any] = {"cwd": str(repo.path), "env": env, "args": args, "log": str(self.log)}
        job["count"] = str(self._count) if count else ""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def ok(self, repo: Repo, *args: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command that must end with one of ``codes``; answers what it printed."""
        code = self.run(repo, *args)
        said = self.log.read_text(errors="replace")
        assert code in codes, f"theta {' '.join(args)}: exit code {code}\n{said}"
        return said

    def steps(self, repo: Repo, *args: str) -> int:
        """How many disk steps ``theta ARGS``, which must succeed, takes."""
        code = self.run(repo, *args, count=True)
        assert code == 0, self.log.read_text(errors="replace")
        return int(self._count.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


@dataclass(frozen=True)
class State:
    """A repository as its user sees it."""

    branch: str
    history: tuple[str, ...]
    index: str
    file: str

    @classmethod
    def of(cls, repo: Repo) -> State:
        """The state of ``repo``; commits are told by their trees, since their times differ."""
        branch = repo.git("rev-parse", "--abbrev-ref", "HEAD")
        history = tuple(repo.git("log", "--format=%T", "--topo-order").split())
        path = repo.path / FILE
        index = repo.git("ls-files", "-s", "-t")
        return cls(branch, history, index, sha256(path) if path.exists() else "gone")


def template(runner: Runner, place: Path) -> Repo:
    """A repository with a checkpoint, a branch ``other`` that changed one tensor, and ``main`` another."""
    repo = Repo.create(place)
    runner.ok(repo, "track", "*.safetensors")
    write(repo, {})
    runner.ok(repo, "add", FILE)
    runner.ok(repo, "commit", "-m", "base")
    repo.git("branch", "other")
    runner.ok(repo, "switch", "other")
    write(repo, {"layers.0.w": 1})
    repo.write("code.py", "print('other')\n")
    runner.ok(repo, "commit", "-a", "-m", "other")
    runner.ok(repo, "switch", "main")
    write(repo, {"layers.1.w": 2})
    runner.ok(repo, "commit", "-a", "-m", "main")
    return repo


def write(repo: Repo, seeds: dict[str, int]) -> str:
    """Write the checkpoint with some tensors of other seeds; answers its sha256."""
    tensors = random_tensors(SHAPES)
    for name, seed in seeds.items():
        tensors[name] = random_tensors({name: SHAPES[name]}, seed)[name]
    return sha256(make_model(repo.path / FILE, tensors))


def copy(repo: Repo, place: Path) -> Repo:
    """A copy of a repository, worktree and all."""
    shutil.copytree(repo.path, place, symlinks=True)
    return Repo(place, repo.ticks)


def leftovers(repo: Repo) -> list[str]:
    """Temporaries and locks that a dead process left."""
    found = []
    for path in repo.path.rglob("*"):
        name = path.name
        stale = name.startswith(("tmp_", "tmp.", "next-index")) or name.endswith(".lock")
        inside = path.parent.name == "tmp" and path.parent.parent.name == "theta"
        if path.is_file() and (stale or inside):
            found.append(str(path.relative_to(repo.path)))
    return found


def wait_for_children(repo: Repo, seconds: float = 20) -> None:
    """Wait until no process works in ``repo`` any more."""
    deadline = time.monotonic() + seconds
    while any(_works_in(process, repo.path) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, "a child of the dead theta does not end"
        time.sleep(0.01)


def _works_in(process: Path, place: Path) -> bool:
    try:
        return (process / "cwd").readlink().is_relative_to(place)
    except OSError:
        return False


def fsck(repo: Repo) -> None:
    """Assert that git finds nothing wrong, dangling objects aside."""
    done = repo.try_git("fsck", "--full", "--strict", "--no-dangling", "--no-progress")
    assert done.returncode == 0, describe(done)


Change = Callable[[Repo], object]


@dataclass(frozen=True)
class Scenario:
    """One command to kill: what comes before it, and what its user would do next."""

    args: tuple[str, ...]
    before: Change = lambda repo: None
    again: Callable[[Repo], tuple[str, ...]] | None = None
    codes: tuple[int, ...] = (0,)

    def next(self, repo: Repo) -> tuple[str, ...]:
        """The command to run after a crash: the same again, unless git would not have that."""
        return self.again(repo) if self.again else self.args


def merge_again(repo: Repo) -> tuple[str, ...]:
    """A merge that is under way is continued."""
    if os.path.exists(repo.path / ".git" / "MERGE_HEAD"):
        return ("merge", "--continue")
    return ("merge", "other")


SCENARIOS: dict[str, Scenario] = {
    "add": Scenario(("add", FILE), lambda repo: write(repo, {"emb": 5})),
    "commit": Scenario(("commit", "-a", "-m", "three"), lambda repo: write(repo, {"emb": 5}), codes=(0, 1)),
    "restore": Scenario(("restore", FILE), lambda repo: (repo.path / FILE).unlink()),
    "restore over": Scenario(("restore", FILE), lambda repo: write(repo, {"emb": 5})),
    "restore source": Scenario(("restore", "--source", "other", "--staged", "--worktree", FILE)),
    "merge": Scenario(("merge", "other"), again=merge_again),
    "switch": Scenario(("switch", "other")),
    "track": Scenario(("track", "*.pt")),
}
