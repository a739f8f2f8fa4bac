"""Pages of the site that are made anew at each build: commands of the help, names of the package."""

from __future__ import annotations

import html
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import theta
from theta.cli import catalogue, helping
from theta.cli.passing import Passing


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file has."""
    for name, lines in {"commands.md": _commands(), "api.md": _names()}.items():
        files.append(File.generated(config, name, content="\n".join(lines) + "\n"))
    return files


def _commands() -> Iterator[str]:
    """Yield the page of all commands, in the groups of ``theta --help``."""
    yield "# Commands"
    yield ""
    yield "This page is made of what `theta help COMMAND` prints."
    for title, names in catalogue.COMMANDS.items():
        yield f"\n## {title[:1].upper()}{title[1:]}"
        for name in names:
            if catalogue.module_of(name) is None:
                continue  # theta help
            yield from _command(name)


def _command(name: str) -> Iterator[str]:
    command = _parser(name)
    yield f"\n### theta {name}"
    yield f"\n```text\n{helping.usage(name, command)}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield _plain(" ".join(paragraph.split())) + "\n"
    rows = [helping.row(one) for one in command.params if getattr(one, "help", None)]
    if rows:
        yield "| | |\n|---|---|"
        yield from (f"| `{left}` | {_plain(told)} |" for left, told in rows)


def _parser(name: str) -> Any:
    """Return what reads the command line of ``theta NAME``."""
    app = importlib.import_module(catalogue.module_of(name) or "").app
    return app.of_typer(name) if isinstance(app, Passing) else typer.main.get_command(app)


def _plain(text: str) -> str:
    """Return ``text`` with nothing in it that Markdown would take for its own."""
    text = html.escape(text, quote=False)
    for mark in "\\`*_[]|":
        text = text.replace(mark, f"&#{ord(mark)};")
    return text


def _names() -> Iterator[str]:
    """Yield the page of all names of ``import theta``, which mkdocstrings fills."""
    homes: dict[str, Any] = theta._HOMES
    yield "# The names of the package"
    yield ""
    yield "This page is made of the docstrings. [theta from Python](python.md) is the way in."
    for name in sorted(theta.__all__, key=str.lower):
        if name in homes:
            yield f"\n::: {homes[name]}.{name}"
        elif inspect.isfunction(value := getattr(theta, name)) or inspect.isclass(value):
            yield f"\n::: {value.__module__}.{name}"
