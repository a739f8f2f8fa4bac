"""The rules of folders: few modules in each, and no file name in two of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

MOST: Final = 16
"""Modules of one folder, ``__init__`` aside."""

ALIKE: Final = {
    "theta.cli": "one module a command",
    "theta.merging.strategies": "one module a family of strategies",
}
"""Folders of more modules than that, and why: their modules are many of one kind."""


def crowded(modules: Iterable[str]) -> list[str]:
    """Folders that hold too many of ``modules`` (dotted names, none of them a package)."""
    inside: dict[str, int] = defaultdict(int)
    for module in modules:
        inside[module.rpartition(".")[0]] += 1
    return [
        f"{folder} holds {count} modules, above {MOST}"
        for folder, count in sorted(inside.items())
        if count > MOST and folder not in ALIKE
    ]


def doubled(modules: Iterable[str]) -> list[str]:
    """File names that stand in several folders."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module in sorted(modules):
        homes[module.rpartition(".")[2]].append(module)
    return [f"{name}: {', '.join(found)}" for name, found in sorted(homes.items()) if len(found) > 1]
