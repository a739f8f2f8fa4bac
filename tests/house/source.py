"""Python modules for the rules: name, syntax tree, and the origin of each name."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from tests.support.environment import ROOT

PRODUCT: Final = ("theta", "theta_native")
"""The packages that are installed."""

OURS: Final = (*PRODUCT, "tests", "bench")
"""All packages of the repository."""


@dataclass(frozen=True)
class Source:
    """One module."""

    module: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, self.module)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All nodes of the syntax tree."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def names(self) -> dict[str, str]:
        """Imported name -> its origin: ``{"np": "numpy", "replace": "os.replace"}``."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    found[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                base = self.base_of(node)
                for alias in node.names:
                    member = f"{base}.{alias.name}"
                    found[alias.asname or alias.name] = _STANDS_FOR.get(member, member)
        return found

    def base_of(self, node: ast.ImportFrom) -> str:
        """Return the absolute name of the module in ``from MODULE import ...``."""
        if not node.level:
            return node.module or ""
        parts = self.module.split(".")
        kept = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*kept, *filter(None, [node.module])])

    def meaning(self, node: ast.expr) -> str:
        """Return the origin of an expression as a dotted name; a part that is not a name is ``?``.

        ``r`` after ``from os import replace as r`` is ``os.replace``; ``open`` is
        ``builtins.open`` unless the module has imported another; ``f(x).unlink`` is ``?.unlink``.
        """
        if isinstance(node, ast.Name):
            return self.names.get(node.id, f"builtins.{node.id}")
        if isinstance(node, ast.Attribute):
            return f"{self.meaning(node.value)}.{node.attr}"
        return "?"

    def references(self) -> Iterator[tuple[ast.AST, str]]:
        """Yield every name, attribute and imported member, with its origin."""
        return iter(self._references)

    @cached_property
    def _references(self) -> list[tuple[ast.AST, str]]:
        found: list[tuple[ast.AST, str]] = []
        for node in self.nodes:
            if isinstance(node, ast.Name | ast.Attribute):
                found.append((node, self.meaning(node)))
            elif isinstance(node, ast.ImportFrom):
                found += [(node, f"{self.base_of(node)}.{alias.name}") for alias in node.names]
        return found

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Yield every call with the origin of the called function."""
        for node in self.nodes:
            if isinstance(node, ast.Call):
                yield node, self.meaning(node.func)

    def imports(self, *, at_start: bool = False) -> Iterator[tuple[ast.AST, str]]:
        """Yield the absolute name of every imported module or member, including those by ``importlib``.

        ``at_start`` yields only imports that happen when the module is imported.
        """
        return iter(self._imports_at_start if at_start else self._imports)

    @cached_property
    def _imports(self) -> list[tuple[ast.AST, str]]:
        return list(self._imports_of(self.nodes))

    @cached_property
    def _imports_at_start(self) -> list[tuple[ast.AST, str]]:
        return list(self._imports_of(_executed(self.tree)))

    def _imports_of(self, nodes: Iterable[ast.AST]) -> Iterator[tuple[ast.AST, str]]:
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node, f"{self.base_of(node)}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Call) and self.meaning(node.func) in _IMPORTERS and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield node, first.value

    def at(self, node: ast.AST, complaint: str) -> str:
        """Return a finding: the place, and the complaint."""
        return f"{self.module}:{getattr(node, 'lineno', 1)}: {complaint}"


_IMPORTERS: Final = ("importlib.import_module", "builtins.__import__", "theta.lazy.Module")

_STANDS_FOR: Final = {"theta._numpy.np": "numpy"}
"""Our name -> the module that it is."""


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run on import: no function bodies, nothing under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _executed(node)


def snippet(text: str, module: str = "theta.store.example") -> Source:
    """Return a module that exists only in a test."""
    return Source(module, text)


def sources(*packages: str) -> list[Source]:
    """Return all modules of ``packages``."""
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return [_load(path) for path in paths]


@cache
def _load(path: Path) -> Source:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    return Source(module, path.read_text(encoding="utf-8"), is_package)


def within(module: str, *packages: str) -> bool:
    """Return whether ``module`` is one of ``packages`` or in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)
