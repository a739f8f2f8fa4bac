"""The journeys of ``architecture.md`` are those of the commands: each function is reached, in that order.

So is the number of modules that a command passes, and of calls that return upwards.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.compat.inprocess import branched, committed, copied, theta
from tests.docs.journeys import Journey, travelled
from tests.house.test_architecture import PAGE, known, members, named
from tests.support import Repo, make_model, mutate, random_tensors
from theta.git.run import version
from theta.porcelain.setup import configured_hooks, launcher

MODEL = "model.safetensors"
SHAPES = {"a.weight": (256, 256), "b.weight": (256, 256)}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Main and side changed one tensor differently, and the file in the worktree has another change."""
    repo = Repo.create(tmp_path_factory.mktemp("journeys") / "repo")
    theta(repo, "track", "*.safetensors")
    make_model(repo.path / MODEL, random_tensors(SHAPES))
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", "first")
    branched(repo, side=[("a.weight", 2.0)])
    committed(repo, ("a.weight", 1.0))
    return repo


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    return copied(template, tmp_path / "repo")


def described(title: str) -> list[str]:
    """The functions of the journey ``title``, without the classes that it speaks of."""
    text = PAGE.read_text()
    (part,) = re.findall(rf"^### {re.escape(title)}\n(.*?)^##", text, re.DOTALL | re.MULTILINE)
    return [name for name in named(part) if is_function(name)]


def is_function(name: str) -> bool:
    module = next(m for m in known() if name.startswith(f"{m}.") and _found(m, name) is not None)
    return isinstance(_found(module, name), ast.FunctionDef)


def _found(module: str, name: str) -> ast.AST | None:
    node: ast.AST | None = known()[module].tree
    for part in name.removeprefix(f"{module}.").split("."):
        node = dict(members(node)).get(part) if node is not None else None
    return node


def check(journey: Journey, title: str, after: int = 0) -> None:
    told = described(title)[after:]
    assert len(told) >= 5
    assert [name for name in journey.functions if name in told] == told


LIMITS = {"add": (18, 2), "restore": (15, 1), "merge": (30, 6), "status": (14, 0)}
"""Command -> the most modules that it may pass, and the most calls that may return upwards.

The numbers are to be lowered, never raised.
"""


BY_GIT: Final = (
    {configured_hooks.__name__, launcher.__name__} if version() >= configured_hooks.FIRST else set()
)
"""The modules that are passed besides, where the hooks are settings of git."""


def hold(journey: Journey, command: str) -> None:
    """Hold the journey of ``command`` to its limits."""
    modules, upwards = LIMITS[command]
    passed = [module for module in journey.modules if module not in BY_GIT]
    assert len(passed) <= modules, passed
    assert len(journey.upwards) <= upwards, journey.upwards


def test_add(repo: Repo) -> None:
    mutate(repo.path / MODEL, "b.weight", lambda old: old * 2)
    journey = travelled(lambda: theta(repo, "add", MODEL), "theta.cli.add.add")
    check(journey, "`theta add model.safetensors`")
    hold(journey, "add")


def test_restore(repo: Repo) -> None:
    repo.write("code.py", "changed")
    run = ("restore", "--source", "HEAD~1", MODEL, "code.py")
    journey = travelled(lambda: theta(repo, *run), "theta.cli.restore.restore")
    check(journey, "`theta restore --source REV model.safetensors`")
    hold(journey, "restore")


def test_merge(repo: Repo) -> None:
    journey = travelled(lambda: theta(repo, "merge", "side", "-X", "ties"), "theta.cli.merge.merge")
    check(journey, "`theta merge BRANCH -X ties`")
    hold(journey, "merge")


def test_status(repo: Repo) -> None:
    mutate(repo.path / MODEL, "b.weight", lambda old: old * 2)
    journey = travelled(lambda: theta(repo, "status"), "theta.cli.status.status")
    check(journey, "`theta status`")
    hold(journey, "status")


def test_hooks(repo: Repo) -> None:
    """As git runs them; what the filter does in a process of its own is not seen from here."""
    title, start = "`git commit -a` with hooks", "theta.cli.plumbing.run_hook"
    mutate(repo.path / MODEL, "b.weight", lambda old: old * 2)

    def run() -> None:
        theta(repo, "hook", "pre-commit")
        theta(repo, "hook", "post-commit")

    check(travelled(run, start), title, after=described(title).index(start))


def test_a_call_upwards_is_seen() -> None:
    below, above = "theta.porcelain.workspace.session", "theta.cli.status"
    journey = Journey(modules=[above, below], calls={(above, below): "down", (below, above): "up"})
    assert journey.upwards == [f"{below} calls up"]
