"""Runs theta commands that die at a chosen step, and looks at what they leave behind."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support import Repo, make_model, random_tensors, sha256
from tests.support.repos import describe
from theta.git.repository import Repository
from theta.porcelain.workspace import rollback

SHAPES = {"emb": (60, 16), "layers.0.w": (16, 16), "layers.1.w": (16, 16), "norm": (16,)}
FILE = "m.safetensors"


class Runner:
    """Runs theta commands that may die; ``log`` holds what the last one printed."""

    def __init__(self, place: Path) -> None:
        self.log = ""
        self._count = place / "steps"

    def run(self, repo: Repo, *args: str, crash_at: int = 0, count: bool = False) -> int:
        """The exit code of ``theta ARGS``; -9 where it died at disk step ``crash_at``."""
        env = {"THETA_CRASH_AT": str(crash_at)} if crash_at else {}
        if count:
            env["THETA_TEST_STEPS"] = str(self._count)
        done = repo.theta(*args, env=env, code=None)
        self.log = done.stdout + done.stderr
        return done.returncode

    def ok(self, repo: Repo, *args: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command that must end with one of ``codes``; return its output."""
        code = self.run(repo, *args)
        assert code in codes, f"theta {' '.join(args)}: exit code {code}\n{self.log}"
        return self.log

    def steps(self, repo: Repo, *args: str) -> int:
        """How many disk steps ``theta ARGS``, which must succeed, takes."""
        code = self.run(repo, *args, count=True)
        assert code == 0, self.log
        return int(self._count.read_text())


@dataclass(frozen=True)
class State:
    """A repository as its user sees it."""

    branch: str
    history: tuple[str, ...]
    index: str
    file: str

    @classmethod
    def of(cls, repo: Repo) -> State:
        """Return the state of ``repo``; a commit stands as its tree, since times differ."""
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
    """Write the checkpoint with some tensors of other seeds; return its sha256."""
    tensors = random_tensors(SHAPES)
    for name, seed in seeds.items():
        tensors[name] = random_tensors({name: SHAPES[name]}, seed)[name]
    return sha256(make_model(repo.path / FILE, tensors))


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
    while _is_worked_in(repo) or _is_worked_in(
        repo
    ):  # again: one may have come after another that was looked at
        assert time.monotonic() < deadline, "a child of the dead theta does not end"
        time.sleep(0.01)


def _is_worked_in(repo: Repo) -> bool:
    return any(_works_in(process, repo.path) for process in Path("/proc").glob("[0-9]*"))


def _works_in(process: Path, place: Path) -> bool:
    try:
        return (process / "cwd").readlink().is_relative_to(place)
    except OSError:
        return False


def fsck(repo: Repo, *options: str) -> None:
    """Assert that git finds nothing wrong, dangling objects aside."""
    done = repo.try_git("fsck", "--full", "--strict", "--no-dangling", "--no-progress", *options)
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
    """Return the arguments that begin the merge, or continue one in progress."""
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


def killed(repo: Repo) -> None:
    """Leave the journal of a command that was moving toward ``other`` and was killed just now."""
    mark = rollback.mark(Repository.discover(repo.path), ["other"])
    body = {"token": "of nobody", "started": time.time(), "moving": mark}
    (repo.path / ".git/theta/journal").write_text(json.dumps(body))
