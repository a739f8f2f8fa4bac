"""Each use case is called by a test that needs no command line."""

from __future__ import annotations

import ast

from tests.house.shape import Function
from tests.house.source import Source, snippet, sources

CALLERS = ("tests/porcelain", "tests/api")


def use_cases(source: Source) -> set[str]:
    """Find the functions of a module that take a request, or somebody to ask who may be nobody."""
    found = {node.name for node in source.tree.body if isinstance(node, Function) and _is_use_case(node)}
    return {f"{source.module.rpartition('.')[2]}.{name}" for name in found if not name.startswith("_")}


def _is_use_case(node: Function) -> bool:
    kinds = [ast.unparse(one.annotation) for one in node.args.args if one.annotation]
    asks = "Dialogue" in kinds
    optional = any(ast.unparse(value) == "NOBODY" for value in node.args.defaults)
    return optional if asks else any(kind.endswith("Request") for kind in kinds)


def called(source: Source) -> set[str]:
    """Find the calls of functions by the name of their module."""
    return {ast.unparse(node.func) for node in source.nodes if isinstance(node, ast.Call)}


def test_each_use_case_is_called_below_the_command_line() -> None:
    wanted = {name for source in sources("theta/porcelain/commands") for name in use_cases(source)}
    assert len(wanted) > 12
    assert wanted - {name for source in sources(*CALLERS) for name in called(source)} == set()


def test_a_use_case_that_nobody_calls_would_be_seen() -> None:
    text = "def do(request: DoRequest) -> None: ...\ndef part(request: R, dialogue: Dialogue) -> None: ..."
    assert use_cases(snippet(text, "theta.porcelain.commands.doing")) == {"doing.do"}
    assert called(snippet("doing.do(request)")) == {"doing.do"}
