"""The journeys of ``architecture.md`` are those of the commands: each function is reached, in that order."""

from __future__ import annotations

import ast
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.compat.inprocess import branched, committed, copied, theta
from tests.house.test_architecture import PAGE, known, members, named
from tests.support import Repo, make_model, mutate, random_tensors

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


def journey(title: str) -> list[str]:
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


def reached(run: Callable[[], object]) -> list[str]:
    """The functions of theta that ``run`` calls, in the order of their first calls."""
    found: dict[str, None] = {}

    def look(frame: FrameType, event: str, _argument: Any) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event == "call" and module.startswith("theta"):
            found.setdefault(f"{module}.{frame.f_code.co_qualname}")

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return list(found)


def check(title: str, found: list[str], after: int = 0) -> None:
    told = journey(title)[after:]
    assert len(told) >= 5
    assert [name for name in found if name in told] == told


def test_add(repo: Repo) -> None:
    mutate(repo.path / MODEL, "b.weight", lambda old: old * 2)
    check("`theta add model.safetensors`", reached(lambda: theta(repo, "add", MODEL)))


def test_restore(repo: Repo) -> None:
    repo.write("code.py", "changed")
    run = ("restore", "--source", "HEAD~1", MODEL, "code.py")
    check("`theta restore --source REV model.safetensors`", reached(lambda: theta(repo, *run)))


def test_merge(repo: Repo) -> None:
    check("`theta merge BRANCH -X ties`", reached(lambda: theta(repo, "merge", "side", "-X", "ties")))


def test_status(repo: Repo) -> None:
    mutate(repo.path / MODEL, "b.weight", lambda old: old * 2)
    check("`theta status`", reached(lambda: theta(repo, "status")))


def test_hooks(repo: Repo) -> None:
    """As git runs them; what the filter does in a process of its own is not seen from here."""
    title = "`git commit -a` with hooks"
    mutate(repo.path / MODEL, "b.weight", lambda old: old * 2)

    def run() -> None:
        theta(repo, "hook", "pre-commit")
        theta(repo, "hook", "post-commit")

    check(title, reached(run), after=journey(title).index("theta.cli.plumbing.run_hook"))
