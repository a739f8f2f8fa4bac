"""The names of a command's own options, read from its source: typer, which knows them, loads for too long."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_TYPER: Final = "typer.Typer"


@dataclass(frozen=True)
class Own:
    """The options of one command.

    Attributes:
        takes: name -> whether it takes a value.
        passes: whether options of git's command of that name hold too.
    """

    takes: dict[str, bool]
    passes: bool


def of_module(module: str) -> Own:
    """Return the options of the command in ``module``."""
    tree = _parsed(module)
    maker = ast.unparse(_assigned(tree, "app").func)  # type: ignore[union-attr]
    source = tree if (command := _command(tree)) else _parsed(_imported(tree, maker))
    function = command or _command(_maker(source, maker))
    takes: dict[str, bool] = {}
    for name, annotation, default in _parameters(function):
        for call, kind in _options(source, annotation, default):
            texts = [one.value for one in call.args if isinstance(one, ast.Constant)]
            words = [text for text in texts if isinstance(text, str) and text.startswith("-")]
            takes |= dict.fromkeys(words or [f"--{name.replace('_', '-')}"], kind != "bool")
    return Own(takes, maker != _TYPER)


@cache
def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    return ast.parse(Path(spec.origin).read_bytes()) if spec and spec.origin else ast.Module([], [])


def _maker(tree: ast.Module, name: str) -> ast.AST:
    """Return the function ``name`` that makes commands."""
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)


def _command(tree: ast.AST) -> ast.FunctionDef | None:
    """Return the function that runs a command: registered by ``app``, or named so inside of a maker."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (
            node.name == "command"
            or any(ast.unparse(one).startswith("app.command") for one in node.decorator_list)
        ):
            return node
    return None


def _parameters(command: ast.FunctionDef | None) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """Yield name, annotation and default of each parameter."""
    if command is not None:
        args, defaults = command.args.args, command.args.defaults
        values = [*[None] * (len(args) - len(defaults)), *defaults]
        for argument, value in zip(args, values, strict=True):
            yield argument.arg, argument.annotation, value


def _options(
    tree: ast.Module, annotation: ast.expr | None, default: ast.expr | None
) -> Iterator[tuple[ast.Call, str]]:
    """Yield the call of ``typer.Option`` behind a parameter, and its type; follow names to what they are."""
    if isinstance(default, ast.Call) and ast.unparse(default.func) == "typer.Option" and annotation:
        yield default, ast.unparse(annotation)
    if isinstance(annotation, ast.Name):
        inner = tree if _assigned(tree, annotation.id) else _parsed(_imported(tree, annotation.id))
        yield from _options(inner, _assigned(inner, annotation.id), None)
    elif isinstance(annotation, ast.Attribute):
        inner = _parsed(_imported(tree, ast.unparse(annotation.value)))
        yield from _options(inner, _assigned(inner, annotation.attr), None)
    elif isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        kind, *rest = annotation.slice.elts
        for one in rest:
            yield from _options(tree, kind, one)


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node.value
    return None


def _imported(tree: ast.Module, name: str) -> str:
    """Return the module that ``name`` is, or that it comes from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(name in (one.asname, one.name) for one in node.names):
            inner = f"{node.module}.{next(one.name for one in node.names if name in (one.asname, one.name))}"
            try:
                return inner if importlib.util.find_spec(inner) else str(node.module)
            except ModuleNotFoundError:
                return str(node.module)
    return name
