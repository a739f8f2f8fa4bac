"""Finding and running a command, and turning errors into one line and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from theta.cli import console
from theta.cli.args import shield
from theta.errors import ExitCode, ThetaError, UsageError

COMMANDS: Final[dict[str, dict[str, str]]] = {
    "start": {
        "init": "Make a new Git repository that is ready for checkpoints",
        "clone": "Clone a repository, its checkpoints filled in",
        "demo": "Show the whole workflow on a small model, with sizes",
        "install": "Set up filter and hooks in this clone (or --global)",
        "uninstall": "Take filter and hooks out of this clone",
    },
    "work on checkpoints and files": {
        "track": "Track files that match a pattern as checkpoints",
        "untrack": "Stop tracking a pattern",
        "ls-files": "List the files that theta tracks",
        "add": "Stage checkpoints and files",
        "rm": "Remove checkpoints and files",
        "mv": "Rename a checkpoint or a file",
        "restore": "Bring back checkpoints and files",
        "convert": "Write a checkpoint anew in another format, or in shards",
        "export": "Write a committed checkpoint, or some of its tensors, to a file",
    },
    "look": {
        "status": "What changed, by file and by tensor",
        "diff": "Differences between versions, tensor by tensor",
        "log": "The history, without .theta/",
        "show": "A commit, a checkpoint or a tensor",
        "cat": "The values of a tensor of any version",
        "scan": "What the pickles of files would call when they are loaded",
        "fsck": "Check repository and checkpoints; --mend brings .theta/ into agreement",
        "help": "Help on a command or a topic",
    },
    "change history": {
        "commit": "Record a new version",
        "branch": "List, make or delete branches",
        "tag": "List, make or delete tags",
        "switch": "Change to another branch",
        "checkout": "Change to another branch, or bring back files",
        "reset": "Set the branch, the index or the files to a version",
        "merge": "Join histories, tensor by tensor",
        "resolve": "Settle checkpoints in conflict, whoever left them",
        "cherry-pick": "Apply the changes of commits here",
        "revert": "Undo the changes of commits",
        "rebase": "Apply commits again on top of another branch",
        "extract-lora": "Write what a fine-tune changed as a LoRA adapter",
    },
    "share": {
        "fetch": "Bring new commits here",
        "pull": "Fetch and merge",
        "push": "Send commits to a remote",
    },
}
_PLUMBING: Final = {"filter-process": "filter_process", "hook": "hook"}


def run(argv: Sequence[str]) -> int:
    """Run ``theta ARGV``; never raises, returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the encoding lacks is printed as an escape
            stream.reconfigure(errors="backslashreplace")
    code = _ended(lambda: _dispatch(list(argv)))
    console.compiled_in_vain()
    return _ended(console.flush) or code


def _ended(work: Callable[[], int | None]) -> int:
    """Do ``work``; returns its exit code, or that of the error that it ended with."""
    try:
        return work() or 0
    except ThetaError as error:
        console.error(error)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except (console.ReaderGoneError, BrokenPipeError):
        console.silence(sys.stdout)
        return int(ExitCode.BROKEN_PIPE)
    except Exception as error:
        return _damaged(error) or console.bug(error)


def _damaged(error: Exception) -> int:
    """Tell an error of libgit2 that nothing foresaw: git's own files are damaged. 0 for any other error."""
    libgit2 = sys.modules.get("pygit2")
    if libgit2 is None or not isinstance(error, libgit2.GitError):
        return 0
    from theta.errors import DamagedRepositoryError
    from theta.git.repository import DAMAGED

    console.error(DamagedRepositoryError(f"git's files cannot be read: {error}", hint=DAMAGED))
    return int(ExitCode.DAMAGED_REPOSITORY)


def _dispatch(argv: list[str]) -> int:
    argv = _global_options(argv)
    if not argv or argv[0] in ("--help", "-h"):
        return _help(argv[1:] if argv else [])
    name, args = argv[0], argv[1:]
    if name == "--version":
        from theta._version import __version__

        console.out(f"theta {__version__}")
        return 0
    if name == "help":
        return _help(args)
    if module := _module(name):
        return invoke(name, module, args)
    return _hand_to_git([name, *args])


def _global_options(argv: list[str]) -> list[str]:
    while argv and argv[0] in ("-C", "--quiet"):
        if argv[0] == "-C":
            if len(argv) < 2:
                raise UsageError("-C needs a directory")
            _change_directory(argv[1])
            argv = argv[2:]
        else:
            console.quiet = True
            argv = argv[1:]
    return argv


def _change_directory(place: str) -> None:
    from theta.errors import NotFoundError

    try:
        os.chdir(place)
    except OSError as error:
        raise NotFoundError(f"cannot change to {place}: {error.strerror}") from error


def _module(name: str) -> str | None:
    if name == "help":
        return None
    if name in _PLUMBING:
        return f"theta.cli.{_PLUMBING[name]}"
    if any(name in group for group in COMMANDS.values()):
        return f"theta.cli.{name.replace('-', '_')}"
    return None


def invoke(name: str, module: str, args: list[str]) -> int:
    """Run the typer app of ``module`` with ``args``."""
    import typer

    _crash_points()
    command: Any = typer.main.get_command(importlib.import_module(module).app)
    try:
        result = command.main(shield(args), prog_name=f"theta {name}", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return int(ExitCode.INTERRUPTED)
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        console.err(f"error: {message}")
        console.err(f"hint: theta {name} --help")
        return int(ExitCode.USAGE)
    return result if isinstance(result, int) else 0


def _crash_points() -> None:
    """Fault injection for the reliability tests: ``THETA_CRASH_AT=N`` dies at the N-th write."""
    point = os.environ.get("THETA_CRASH_AT")
    if point:
        from theta import _fs

        left = [int(point)]

        def step(operation: str, path: str) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), 9)

        _fs.on_step = step


def _hand_to_git(argv: list[str]) -> int:
    from theta.cli.common import after_git, session_or_none
    from theta.git.run import plain
    from theta.porcelain import guarding

    session = session_or_none()
    checked = guarding.options(session, argv) if session is not None else ()
    code = plain().show(*checked, *argv)
    if session is not None:
        after_git(session)
    return code


def _help(args: list[str]) -> int:
    if args and args[0] != "help":
        if module := _module(args[0]):
            return invoke(args[0], module, ["--help"])
        from theta.cli.topics import show_topic

        return show_topic(args[0])
    console.out("usage: theta [-C DIR] [--quiet] [--version] [--help] COMMAND [ARGS]", "")
    for group, commands in COMMANDS.items():
        console.out(group)
        for name, summary in commands.items():
            console.out(f"   {name:<13}{summary}")
        console.out("")
    console.out("Any other command is handed to git. 'theta help COMMAND' tells more;")
    console.out("'theta help format' and 'theta help design' are the manuals of the storage,")
    console.out("'theta help formats' lists the kinds of files that theta reads as tensors.")
    return 0
