"""The help of a command: its usage with operands, what it does, and the options that are theta's."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from theta.cli import console

_WIDTH: Final = 78
_COLUMN: Final = 26
_OPERANDS: Final = {
    "check": "[REV | FILE...]",
    "add": "PATH...",
    "apply": "REV [PATH...]",
    "blame": "[REV] [--] PATH[#TENSOR]",
    "branch": "[NAME [START]]",
    "bundle": "create FILE RANGE | apply FILE [REF]",
    "checkout": "[BRANCH | REV] [--] [PATH...]",
    "cherry-pick": "REV...",
    "clone": "URL [DIR]",
    "commit": "[--] [PATH...]",
    "diff": "[REV [REV]] [--] [PATH...]",
    "fetch": "[REMOTE [REF...]]",
    "init": "[DIR]",
    "log": "[REV...] [--] [PATH...]",
    "ls-files": "[--] [PATH...]",
    "merge": "[REV...]",
    "mv": "SOURCE... TARGET",
    "pull": "[REMOTE [REF...]]",
    "push": "[REMOTE [REF...]]",
    "rebase": "[UPSTREAM [BRANCH]]",
    "reset": "[REV] [--] [PATH...]",
    "resolve": "[PATH...]",
    "restore": "[--] PATH...",
    "revert": "REV...",
    "rm": "[--] PATH...",
    "scan": "[PATH | REV | REV:PATH]...",
    "show": "[REV | REV:PATH | REV:PATH#TENSOR]... [--] [PATH...]",
    "status": "[--] [PATH...]",
    "switch": "BRANCH",
    "tag": "[NAME [REV]]",
}
"""The operands of commands whose parser does not know them; most commands pass them to git."""


def show(name: str, command: Any, *, passes: bool) -> None:
    """Print the help of ``theta NAME``; ``passes``: git's options apply too."""
    options = [one for one in command.params if one.param_type_name == "option"]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    console.out(f"usage: {usage(name, command)}")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        console.out("", *textwrap.wrap(" ".join(paragraph.split()), _WIDTH))
    console.out()
    for one in (*arguments, *options):
        for line in _rows(one):
            console.out(line)
    if passes:
        console.out(f"   All other options are those of 'git {name}'.")


def usage(name: str, command: Any) -> str:
    """Return the line of ``theta NAME`` with its operands."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    operands = [_OPERANDS[name]] if name in _OPERANDS else [_operand(one) for one in arguments]
    return f"theta {name} [OPTIONS] {' '.join(operands)}".rstrip()


def _operand(one: Any) -> str:
    text = (one.metavar or one.name.upper()) + ("..." if one.nargs == -1 else "")
    return text if one.required else f"[{text}]"


def row(one: Any) -> tuple[str, str]:
    """Return an argument or option with its value, and its description."""
    if one.param_type_name == "argument":
        left = one.metavar or one.name.upper()
    else:
        left = ", ".join(sorted(one.opts, key=len))
        left += "" if one.is_flag else f" {one.metavar or one.name.upper().replace('_', '-')}"
    return left, " ".join(one.help.split())


def _rows(one: Any) -> Iterator[str]:
    """Yield the lines of one argument or option."""
    if not getattr(one, "help", None):
        return
    left, told = row(one)
    first, *rest = textwrap.wrap(told, _WIDTH - _COLUMN)
    if len(left) > _COLUMN - 5:
        yield f"   {left}"
        left = ""
    yield f"   {left:<{_COLUMN - 3}}{first}"
    for line in rest:
        yield " " * _COLUMN + line
