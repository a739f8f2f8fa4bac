"""The code blocks of README, CONTRIBUTING and manual, each of which a test must read.

A test says which blocks it reads, by ``@pytest.mark.page(PAGE, LANGUAGE, *NUMBERS)``, and gets them by the
fixture ``page_blocks``.  It fails if it left one of them unread; ``test_every_block`` finds blocks that no
test names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.environment import ROOT

DOCS: Final = ROOT / "theta" / "docs"
_FENCED: Final = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NOT_RUN: Final = {"skip", "skipif", "xfail", "campaign", "gitsuite"}
"""Marks of tests that CI leaves out; ``frameworks`` are run by ``.ci/frameworks``."""

Key = tuple[str, str, int]
"""Page, language, and number among the blocks of the page in that language."""


@dataclass
class Block:
    """A block of a page; ``body`` may be looked at only as :attr:`text` or :attr:`commands`."""

    key: Key
    body: str
    read: bool = False

    @property
    def text(self) -> str:
        """The lines between the fences."""
        self.read = True
        return self.body

    @property
    def commands(self) -> list[str]:
        """The lines of a block for a shell, without the prompt and without remarks behind a command."""
        lines = [line.removeprefix("$ ") for line in self.text.splitlines()]
        return [line if line.startswith("# ") else re.sub(r"\s+# .*", "", line) for line in lines]


def pages() -> dict[str, Path]:
    """Return the pages that have blocks for users, by the names that marks give them."""
    own = {"README": ROOT / "README.md", "CONTRIBUTING": ROOT / ".github" / "CONTRIBUTING.md"}
    return own | {page.stem: page for page in sorted(DOCS.glob("*.md"))}


def every_block(page: str) -> list[Block]:
    """Return the blocks of a page, in their order."""
    found: list[Block] = []
    for language, body in _FENCED.findall(pages()[page].read_text()):
        number = sum(block.key[1] == language for block in found)
        found.append(Block((page, language, number), body))
    return found


def outside(page: str) -> str:
    """Return what of a page is in no block."""
    return _FENCED.sub("", pages()[page].read_text())


def chosen(page: str, language: str, *numbers: int) -> list[Block]:
    """Return the blocks that a mark with these arguments names: all of the language if it has no number."""
    known = [block for block in every_block(page) if block.key[1] == language]
    found = [known[number] for number in numbers] if numbers else known
    assert found, f"{page} has no block in {language or 'no language'}"
    return found


@pytest.fixture
def page_blocks(request: pytest.FixtureRequest) -> Iterator[list[Block]]:
    """The blocks that the marks of the test name; all of them must have been read at its end."""
    marks = list(request.node.iter_markers("page"))
    found = [block for mark in reversed(marks) for block in chosen(*mark.args)]
    yield found
    assert [block.key for block in found if not block.read] == []


def named() -> dict[Key, list[str]]:
    """Return the blocks that tests name, with these tests."""
    found: dict[Key, list[str]] = {}
    for module in sorted((ROOT / "tests").rglob("test_*.py")):
        text = module.read_text()
        for test, mark in _marks(ast.parse(text)) if "mark.page(" in text else ():
            for block in chosen(*map(ast.literal_eval, mark.args)):
                found.setdefault(block.key, []).append(f"{module.relative_to(ROOT)}::{test}")
    return found


def _marks(module: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Yield the marks ``page`` of tests that get the blocks and that CI runs."""
    for test in module.body:
        if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
            continue
        calls = [
            call for line in test.decorator_list for call in ast.walk(line) if isinstance(call, ast.Call)
        ]
        used = {
            node.attr
            for line in test.decorator_list
            for node in ast.walk(line)
            if isinstance(node, ast.Attribute)
        }
        if used & _NOT_RUN or "page_blocks" not in {argument.arg for argument in test.args.args}:
            continue
        yield from ((test.name, call) for call in calls if ast.unparse(call.func) == "pytest.mark.page")
