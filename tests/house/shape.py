"""The rules of shape: docstrings, annotations, and ceilings on length."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from tests.house.source import Source, within

FILE_CEILING: Final = 800
FUNCTION_CEILING: Final = 80
CLI_CEILING: Final = 150
"""The limit of lines of a module of the command line, which has options, asking and rendering only."""
_LONG_IN_CLI: Final = ("theta.cli.demo", "theta.cli.prompting")
INNER_IMPORTS: Final = 85
"""The limit of imports inside functions; the number only shrinks."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def undocumented(source: Source) -> list[str]:
    """Find a module without a docstring."""
    return (
        [] if ast.get_docstring(source.tree) else [source.at(source.tree, "does not start with a docstring")]
    )


def public(tree: ast.AST) -> Iterator[Function | ast.ClassDef]:
    """Yield the public functions, methods and classes: no underscore, not inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.ClassDef):
            if not node.name.startswith("_"):
                yield node
                if isinstance(node, ast.ClassDef):
                    yield from public(node)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from public(node)


def unfinished(source: Source) -> list[str]:
    """Find public functions and classes without a docstring or without annotations."""
    found = []
    for node in public(source.tree):
        if not ast.get_docstring(node) and not _is_overload(node):
            found.append(source.at(node, f"{node.name} has no docstring"))
        if isinstance(node, Function) and (missing := _unannotated(node)):
            found.append(source.at(node, f"{node.name} lacks annotations of {', '.join(missing)}"))
    return found


def _is_overload(node: Function | ast.ClassDef) -> bool:
    return any(ast.unparse(item).endswith(("overload", ".setter")) for item in node.decorator_list)


def _unannotated(node: Function) -> list[str]:
    given = node.args
    arguments = [
        *given.posonlyargs,
        *given.args,
        *given.kwonlyargs,
        *filter(None, [given.vararg, given.kwarg]),
    ]
    names = [
        entry.arg for entry in arguments if entry.annotation is None and entry.arg not in ("self", "cls")
    ]
    return names + ([] if node.returns else ["what it returns"])


def too_long(source: Source) -> list[str]:
    """Find files and functions above the ceilings."""
    found = []
    of_cli = within(source.module, "theta.cli") and source.module not in _LONG_IN_CLI
    ceiling = CLI_CEILING if of_cli else FILE_CEILING
    if (lines := source.text.count("\n")) > ceiling:
        found.append(source.at(source.tree, f"{lines} lines, above {ceiling}"))
    for node in source.nodes:
        if isinstance(node, Function) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_CEILING:
                found.append(source.at(node, f"{node.name}: {length} lines, above {FUNCTION_CEILING}"))
    return found


def inner_imports(source: Source) -> list[str]:
    """Find imports inside functions, which a reader of the head of the module does not see."""
    functions = [node for node in source.nodes if isinstance(node, Function)]
    found = {node for function in functions for node in ast.walk(function)}
    return [
        source.at(node, ast.unparse(node)) for node in found if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def namesakes(found: Iterable[Source]) -> list[str]:
    """Find different public types of the same name, unless a comment on the line says why.

    An alias with the same definition in several modules is one type.
    """
    kinds: dict[str, dict[str, str]] = defaultdict(dict)
    for source in found:
        lines = source.text.splitlines()
        for node in source.tree.body:
            if (name := _type_name(node)) and "  # " not in lines[node.lineno - 1]:
                what = (
                    f"{source.module}:{node.lineno}" if isinstance(node, ast.ClassDef) else ast.unparse(node)
                )
                kinds[name].setdefault(what, source.at(node, f"{name} is another type elsewhere"))
    return [place for places in kinds.values() if len(places) > 1 for place in places.values()]


def _type_name(node: ast.stmt) -> str:
    """Return the name of the public class or alias that a statement defines; "" if it defines none."""
    if isinstance(node, ast.ClassDef):
        name = node.name
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
    else:
        return ""
    return name if name[0].isupper() and not name.isupper() else ""
