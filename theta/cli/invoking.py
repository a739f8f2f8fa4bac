"""Running a command of theta: its options, its help, what git refuses."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from theta.cli import args as arguments
from theta.cli import console, elsewhere, remembering
from theta.cli.args import Given
from theta.cli.catalogue import PLUMBING
from theta.cli.passing import Passing
from theta.errors import ExitCode

_USAGE_OF_GIT: Final = 129
"""The exit code of a git command that prints its usage."""
_REFUSALS_OF_GIT: Final = (128, _USAGE_OF_GIT, 255)
"""The exit codes of git commands that do not know an option: log, most, diff."""


def by_git(name: str, args: list[str]) -> int | None:
    """Run a command that git starts; return None if typer has to read its line."""
    from theta.cli import plumbing

    _crash_points()
    return plumbing.run(name, args)


def invoke(name: str, module: str, args: list[str]) -> int:
    """Run the command in ``module`` with ``args``."""
    _crash_points()
    app: Any = importlib.import_module(module).app
    if not isinstance(app, Passing) or not app.runs_alone(args):
        return _by_typer(name, app, args)
    if (code := elsewhere.by_git(name, args)) is not None:
        return code
    with remembering.command(name, args):
        code = app.function(Given(name, args))
    return _suggested(name, args, app.own or {}, code)


def _by_typer(name: str, app: Any, args: list[str]) -> int:
    """Run a command whose options typer reads, or show its help."""
    import typer

    command = app.of_typer(name) if isinstance(app, Passing) else typer.main.get_command(app)
    own = _own(command)
    if (helps := _asks_for_help(args, own)) is not None:
        from theta.cli import helping

        helping.show(name, command, passes=own is not None)
        return helps if name not in PLUMBING else 0
    if name not in PLUMBING and (code := elsewhere.by_git(name, args, is_of_git=own is not None)) is not None:
        return code
    try:
        args = _quietly(command, args) if own is None and name not in PLUMBING else args
        words = args if own is None else arguments.shield(name, args, own)
        if words is None:
            return _suggested(name, args, own or {}, _refused_by_git([name, *args]))
        with remembering.command(name, args):
            result = command.main(words, prog_name=f"theta {name}", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return int(ExitCode.INTERRUPTED)
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        console.err(f"error: {message}")
        console.err(f"hint: theta {name} --help")
        return int(ExitCode.USAGE)
    return _suggested(name, args, own or {}, result if isinstance(result, int) else 0)


def _quietly(command: Any, args: list[str]) -> list[str]:
    """Return ``args`` without ``-q`` and ``--quiet``, which hold for every command of theta."""
    ours = {word for one in command.params if one.param_type_name == "option" for word in one.opts}
    before, _ = arguments.parted(args)
    found = [arg for arg in before if arg not in {"-q", "--quiet"} - ours]
    console.quiet = console.quiet or found != before
    return [*found, *args[len(before) :]]


def _asks_for_help(args: list[str], own: dict[str, bool] | None) -> int | None:
    """Return git's exit code for a command line that asks for help; None for any other."""
    if args == ["-h"]:
        return _USAGE_OF_GIT if own is not None else 0
    asked = args[:1] if own is not None else arguments.parted(args)[0]
    return 0 if "--help" in asked else None


def _refused_by_git(argv: list[str]) -> int:
    from theta.git.run import plain

    return plain(Path.cwd()).show(*argv)


def _own(command: Any) -> dict[str, bool] | None:
    """Return theta's option -> whether it takes a value, if it takes git's too; None for others."""
    if not command.context_settings.get("ignore_unknown_options"):
        return None
    options = [one for one in command.params if one.param_type_name == "option"]
    return {word: not option.is_flag for option in options for word in option.opts}


def _suggested(name: str, args: list[str], own: Mapping[str, bool], code: int) -> int:
    """Return ``code``; where git refused the command line, tell which option of theta may have been meant.

    At a terminal git's usage is followed by what was wrong, which it has moved out of sight.  Programs get
    what git prints.
    """
    if code not in _REFUSALS_OF_GIT:
        return code
    if code == _USAGE_OF_GIT and console.is_watched():
        fault = arguments.read(name, args, _long(own)).fault
        console.err(*([fault] if fault else []), f"hint: theta {name} --help; git's options: git {name} -h")
    from difflib import get_close_matches

    for arg in arguments.parted(args)[0]:
        word = arg.partition("=")[0]
        if arg.startswith("--") and word not in own and (near := get_close_matches(word, own, 1, 0.75)):
            console.err(f"hint: theta {name} has {near[0]}; did you mean that?")
    return code


def _long(own: Mapping[str, bool]) -> list[str]:
    """Return theta's long options as :func:`theta.cli.args.read` takes them."""
    return [word + "=" * takes for word, takes in own.items() if word.startswith("--")]


def _crash_points() -> None:
    """Inject faults for the reliability tests: with ``THETA_CRASH_AT=N`` the N-th write ends the process."""
    point = os.environ.get("THETA_CRASH_AT")
    if point:
        from theta import _fs

        left = [int(point)]

        def step(_operation: str, _path: str) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), 9)

        _fs.on_step = step
