"""``architecture.md`` names every room, and nothing that is not there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache

import pytest

from tests.house.rooms import ROOMS
from tests.house.source import PRODUCT, Source, sources
from tests.support.environment import ROOT

PAGE = ROOT / "theta" / "docs" / "architecture.md"


@cache
def known() -> Mapping[str, Source]:
    """The modules by their names."""
    return {source.module: source for source in sources(*PRODUCT)}


def named(text: str) -> list[str]:
    """The dotted names in backticks that are ours."""
    return re.findall(r"`(theta(?:_native)?(?:\.\w+)*)`", text)


def members(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield the functions, classes and names that a module or a class defines."""
    for item in ast.iter_child_nodes(node):
        if isinstance(item, ast.FunctionDef | ast.ClassDef):
            yield item.name, item
        elif isinstance(item, ast.Assign | ast.AnnAssign):
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            yield from ((target.id, item) for target in targets if isinstance(target, ast.Name))


def exists(name: str) -> bool:
    """Return whether there is a module of that name, or one that defines the rest of it."""
    if name in known():
        return True
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        source = known().get(".".join(parts[:cut]))
        if source is not None:
            return _defines(source.tree, parts[cut:])
    return False


def _defines(node: ast.AST, path: list[str]) -> bool:
    for part in path:
        found = dict(members(node)).get(part)
        if found is None:
            return False
        node = found
    return True


def test_every_name_is_there() -> None:
    names = named(PAGE.read_text())
    assert len(names) > 100
    assert [name for name in names if not exists(name)] == []


def test_every_room_is_on_the_map() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [room.name for room in ROOMS]


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("theta.store.write.snapshot", True),
        ("theta.store.write.snapshot.Snapshot.store", True),
        ("theta.formats.READERS", True),
        ("theta.store.changes.Change.old_name", True),
        ("theta.store.write.snapshot.Snapshot.restore", False),
        ("theta.store.write.photograph", False),
        ("theta.store.Manifest", False),
        ("theta.nowhere.at.all", False),
    ],
)
def test_a_name_that_is_not_there_is_seen(name: str, there: bool) -> None:
    assert exists(name) is there
    assert named(f"see `{name}` here") == [name]
