"""The rule of layers: imports point downwards only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Final

from tests.house.source import Source, within

LAYERS: Final = (
    (
        "theta.errors",
        "theta.dtypes",
        "theta.lazy",
        "theta.units",
        "theta.parallel",
        "theta._blas",
        "theta._fs",
        "theta._memory",
        "theta._modes",
        "theta._notes",
        "theta._numpy",
        "theta._room",
        "theta._version",
        "theta.progress",
    ),
    ("theta_native",),
    ("theta._kernels",),
    ("theta.codecs", "theta.formats"),
    ("theta.git",),
    ("theta.store",),
    ("theta.merging",),
    ("theta.engine",),
    ("theta.pages",),
    ("theta.porcelain",),
    ("theta.api",),
    ("theta.hf", "theta.jax", "theta.keras", "theta.lightning", "theta.torch"),
    ("theta",),
    ("theta.cli",),
    ("theta.__main__",),
)
"""The layers from the bottom up; those of the lowest may import each other.

``theta`` is only ``theta/__init__.py``, the public API, not the modules in the package.
"""


def home_of(module: str) -> tuple[int, str] | None:
    """Return the height and the layer of ``module``; None for modules of others."""
    if not within(module, "theta", "theta_native"):
        return None
    for height, layer in enumerate(LAYERS):
        for name in layer:
            if name != "theta" and within(module, name):
                return height, name
    height = next(height for height, layer in enumerate(LAYERS) if "theta" in layer)
    return height, "theta"


def unplaced(source: Source) -> list[str]:
    """Find a module directly in ``theta/`` that is not in the table of layers."""
    placed = home_of(source.module)
    if placed and placed[1] == "theta" and source.module != "theta":
        return [source.at(source.tree, "has no place in the layers; give it one in tests/house/layers.py")]
    return []


def upward_imports(source: Source) -> list[str]:
    """Find imports of a higher layer, or of another package of the same layer."""
    here = home_of(source.module)
    if here is None:
        return []
    found = []
    for node, target in source.imports():
        there = home_of(target)
        if there is None or there[1] == here[1]:
            continue
        bottom = here[0] == there[0] == 0
        if there[0] >= here[0] and not bottom:
            found.append(source.at(node, f"{here[1]} may not import {there[1]} ({target})"))
    return found


def circles(sources: Iterable[Source]) -> list[tuple[str, ...]]:
    """Return the groups of modules that import each other, including lazy imports and those for types."""
    below = _arrows(sources)
    reached = {module: _reached(module, below) for module in below}
    alike = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in below
        if module in reached[module]
    }
    return sorted(alike)


def reached_from(module: str, sources: Iterable[Source]) -> set[str]:
    """Return all modules that ``module`` imports directly or indirectly."""
    return _reached(module, _arrows(sources))


def _arrows(sources: Iterable[Source]) -> dict[str, set[str]]:
    found = list(sources)
    known = {source.module for source in found}
    return {source.module: _imported(source, known) for source in found}


def _imported(source: Source, known: Set[str]) -> set[str]:
    """Return the modules that ``source`` imports by name; importing a module is no import of its package."""
    found = set()
    for _, target in source.imports():
        name = target if target in known else target.rpartition(".")[0]
        found |= {name} & known
    return found


def _reached(module: str, below: Mapping[str, Set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = below[waiting.pop()] - found
        found |= new
        waiting += new
    return found
