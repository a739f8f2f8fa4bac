"""The manual pages: the help of the commands as man shows it."""

from __future__ import annotations

import inspect
from typing import Any, Final

from theta._version import __version__
from theta.cli import catalogue, helping
from theta.cli.passing import Passing

_SUMMARIES: Final = {name: text for group in catalogue.COMMANDS.values() for name, text in group.items()}


def overview() -> str:
    """Return the page ``theta(1)``: all commands, each with its one line."""
    lines = [
        *_head("theta", "version control for machine-learning checkpoints, on ordinary Git repositories"),
        ".B theta",
        _text("[-C DIR] [--quiet] [--color WHEN] COMMAND [ARGS]"),
        ".SH DESCRIPTION",
        _text("Any other command is handed to git. 'git theta COMMAND' is the same as 'theta COMMAND'."),
    ]
    for group, commands in catalogue.COMMANDS.items():
        lines += [".SH " + _text(group.upper())]
        for name, summary in commands.items():
            lines += [".TP", f".BR theta\\-{_text(name)} (1)", _text(summary)]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR git (1)"]) + "\n"


def page(name: str, app: Any) -> str:
    """Return the page ``theta-NAME(1)`` of the command that ``app`` reads."""
    import typer

    passes = isinstance(app, Passing)
    command = app.of_typer(name) if passes else typer.main.get_command(app)
    usage = helping.usage(name, command).removeprefix(f"theta {name}").strip()
    lines = [*_head(f"theta-{name}", _SUMMARIES[name]), f".B theta {_text(name)}", _text(usage)]
    lines.append(".SH DESCRIPTION")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += [".PP", _text(" ".join(paragraph.split()))]
    rows = [helping.row(one) for one in command.params if getattr(one, "help", None)]
    lines += [".SH OPTIONS"] if rows or passes else []
    for left, told in rows:
        lines += [".TP", f".B {_text(left)}", _text(told)]
    if passes:
        lines += [".PP", _text(f"All other options are those of 'git {name}'.")]
    others = f", git\\-{_text(name)} (1)" if passes else ""
    return "\n".join([*lines, ".SH SEE ALSO", f".BR theta (1){others}"]) + "\n"


def _head(name: str, summary: str) -> list[str]:
    title = f'.TH "{name.upper()}" "1" "" "theta {__version__}" "theta"'
    return [title, ".SH NAME", f"{_text(name)} \\- {_text(summary)}", ".SH SYNOPSIS"]


def _text(text: str) -> str:
    """Return ``text`` as roff reads it: characters with a meaning of its own are escaped."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
