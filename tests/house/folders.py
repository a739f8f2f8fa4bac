"""The rules of folders: few modules in each, and no file name in two of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

MOST: Final = 16
"""The largest number of modules in one folder, without ``__init__``."""

ALIKE: Final = {
    "theta.cli": "one module a command",
    "theta.merging.strategies": "one module a family of strategies",
}
"""Folder with more modules -> the kind of these."""


def crowded(modules: Iterable[str]) -> list[str]:
    """Find folders with too many of ``modules`` (dotted names, no packages)."""
    inside: dict[str, int] = defaultdict(int)
    for module in modules:
        inside[module.rpartition(".")[0]] += 1
    return [
        f"{folder} holds {count} modules, above {MOST}"
        for folder, count in sorted(inside.items())
        if count > MOST and folder not in ALIKE
    ]


def doubled(modules: Iterable[str]) -> list[str]:
    """Find file names that are in several folders."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module in sorted(modules):
        homes[module.rpartition(".")[2]].append(module)
    return [f"{name}: {', '.join(found)}" for name, found in sorted(homes.items()) if len(found) > 1]
