"""The rule of prose: the subject is the thing, the verb is what the function does, one idea a sentence."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Final

from tests.house.shape import Function
from tests.house.source import PRODUCT, Source, within

_STARTS: Final = re.compile(r"(What|Whose|Where|Who|Whoever|Of|Which|That|Why|None)\b")
"""First words of a docstring whose subject is a question, or nothing at all."""

_NOUNS: Final = re.compile(
    r"(The|An?|Each|All|Every|How|Before|Without|Standard|Git|Whatever|Fault)\b|``|:|\w+[^s]s\b"
)
"""First words of the docstring of a function that name a thing, or tell what it does in the third person."""

_PHRASES: Final = re.compile(
    r"\b[nN]one where\b|\bbut for\b|\bunder way\b|\bat hand\b|\b(is|are) told\b|\bthat which\b|\bwhoever\b"
    r"|\b[Tt]he answer is\b|\bAnswers? (the|a|an|with|whether)\b|[;,] answers\b|\bwhere there (is|are)\b"
    r"|\braises (\S+ )?where\b|\bbe it\b"
)
"""Turns of phrase that a reader has to translate, none of which is git's or numpy's."""

_QUESTIONS: Final = ("property", "cached_property", "lazy")
"""Decorators of functions that are read like a field, for which "Whether ..." is the plain word."""


def unclear(source: Source) -> list[str]:
    """Find docstrings that start with a question word, and phrases to avoid in docstrings and comments."""
    found = []
    for node, text in _documented(source):
        if match := _STARTS.match(text):
            found.append(source.at(node, f"a docstring starts with {match[0]!r}: name the thing or the verb"))
        elif isinstance(node, Function) and text.startswith("Whether ") and not _is_field(node):
            found.append(
                source.at(node, "a function's docstring starts with 'Whether', not 'Return whether'")
            )
        elif isinstance(node, Function) and _is_nominal(source, node, text):
            found.append(source.at(node, f"a function's docstring starts with {text.split()[0]!r}, no verb"))
    for line, text in _prose(source) if _PHRASES.search(source.text) else ():
        if match := _PHRASES.search(text):
            found.append(f"{source.module}:{line}: {match[0]!r}: use a plainer phrase")
    return found


def _documented(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Yield each docstring with its module, class or function, or with the string of a field."""
    owned: set[int] = set()
    for node in source.nodes:
        if isinstance(node, ast.Module | ast.ClassDef | Function) and (text := ast.get_docstring(node)):
            owned.add(id(node.body[0]))
            yield node, text
    for node in source.nodes:
        if isinstance(node, ast.Expr) and id(node) not in owned and isinstance(node.value, ast.Constant):
            yield node, str(node.value.value)


def _is_nominal(source: Source, node: Function, text: str) -> bool:
    """Return whether a function of the product, which is no field, is described by a noun."""
    return within(source.module, *PRODUCT) and not _is_field(node) and _NOUNS.match(text) is not None


def _is_field(node: Function) -> bool:
    return any(ast.unparse(item).rpartition(".")[2] in _QUESTIONS for item in node.decorator_list)


def _prose(source: Source) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines of docstrings and comments, without code in double backticks."""
    for node in source.nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines = str(node.value.value).splitlines()
            yield from ((node.lineno + number, _plain(line)) for number, line in enumerate(lines))
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], _plain(token.string)


def _plain(line: str) -> str:
    return re.sub(r"``.*?``", "``", line)
