"""Finding and running a command, and turning errors into one line and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from theta import progress
from theta.cli import args as arguments
from theta.cli import before, console, elsewhere, helping, paging
from theta.errors import ExitCode, ThetaError

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
        "fsck": "Check repository and checkpoints; --mend rebuilds .theta/",
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
_USAGE_OF_GIT: Final = 129
"""The exit code of a git command that prints its usage."""
_REFUSALS_OF_GIT: Final = (128, _USAGE_OF_GIT, 255)
"""The exit codes of git commands that do not know an option: log, most, diff."""
_MOVES: Final = ("stash", "am", "bisect")
"""Commands of git that write files of the worktree, and that theta has no part in."""
_STORED: Final = re.compile(r'"?\.theta(/|$)')
_PLUMBING: Final = {"filter-process": "filter_process", "hook": "hook"}


def run(argv: Sequence[str]) -> int:
    """Run ``theta ARGV``; never raises, returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the encoding lacks is printed as an escape
            stream.reconfigure(errors="backslashreplace")
    progress.fetches = console.fetches
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
    from theta.git.object_values import DAMAGED

    console.error(DamagedRepositoryError(f"git's files cannot be read: {error}", hint=DAMAGED))
    return int(ExitCode.DAMAGED_REPOSITORY)


def _dispatch(argv: list[str]) -> int:
    argv = before.taken(argv)
    if not argv or argv[0] in ("--help", "-h"):
        return _help(argv[1:] if argv else [])
    name, args = argv[0], argv[1:]
    if name in ("--version", "-v"):
        from theta._version import __version__

        console.out(f"theta {__version__}")
        return 0
    if name == "help":
        return _help(args)
    if name in _PLUMBING and (code := _run_by_git(name, args)) is not None:
        return code
    if (module := _module(name)) is None or name in paging.NAMES:
        paging.begin(name)
    if module:
        return invoke(name, module, args)
    return _hand_to_git([name, *args])


def _run_by_git(name: str, args: list[str]) -> int | None:
    """Run a command that git starts; None where typer has something to tell of its line."""
    from theta.cli import plumbing

    _crash_points()
    return plumbing.run(name, args)


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
    own = _own(command)
    if (helps := _asks_for_help(args, own)) is not None:
        helping.show(name, command, passes=own is not None)
        return helps if name not in _PLUMBING and name != "resolve" else 0
    if own is not None and name not in _PLUMBING and (code := elsewhere.by_git(name, args)) is not None:
        return code
    try:
        args = _quietly(command, args) if own is None and name not in _PLUMBING else args
        words = arguments.dashed(args) if own is None else arguments.shield(name, args, own)
        if words is None:
            return _refused_by_git([name, *args])
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
    code = result if isinstance(result, int) else 0
    if own is None:
        return code
    if code in _REFUSALS_OF_GIT:
        _suggest_option(name, args, own)
    return code


def _quietly(command: Any, args: list[str]) -> list[str]:
    """``args`` of a command of theta without ``-q`` and ``--quiet``, which hold for every command."""
    ours = {word for one in command.params if one.param_type_name == "option" for word in one.opts}
    end = args.index("--") if "--" in args else len(args)
    found = [arg for arg in args[:end] if arg not in {"-q", "--quiet"} - ours]
    console.quiet = console.quiet or len(found) < end
    return [*found, *args[end:]]


def _asks_for_help(args: list[str], own: dict[str, bool] | None) -> int | None:
    """The exit code of a command line that asks for help, as git's; None of any other."""
    if args == ["-h"]:
        return _USAGE_OF_GIT if own is not None else 0
    asked = args[:1] if own is not None else args[: args.index("--") if "--" in args else None]
    return 0 if "--help" in asked else None


def _refused_by_git(argv: list[str]) -> int:
    from theta.git.run import plain

    return plain(Path.cwd()).show(*argv)


def _own(command: Any) -> dict[str, bool] | None:
    """Theta's options of a command that also takes git's, and whether they take a value; None of others."""
    if not command.context_settings.get("ignore_unknown_options"):
        return None
    options = [one for one in command.params if one.param_type_name == "option"]
    return {word: not option.is_flag for option in options for word in option.opts}


def _suggest_option(name: str, args: list[str], own: dict[str, bool]) -> None:
    """Git has refused the command line: an option of theta may have been meant."""
    from difflib import get_close_matches

    for arg in args[: args.index("--") if "--" in args else None]:
        word = arg.partition("=")[0]
        if arg.startswith("--") and word not in own and (near := get_close_matches(word, own, 1, 0.75)):
            console.err(f"hint: theta {name} has {near[0]}; did you mean that?")


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
    from theta.cli.common import after_git, ended, session_or_none, uses_theta
    from theta.git.run import plain
    from theta.porcelain.drive import overwrites

    if near := _misspelled(argv[0]):
        console.err(f"error: '{argv[0]}' is not a theta command, and is not a git command")
        console.err(near)
        return 1
    session = session_or_none()
    if session is None:
        return plain(Path.cwd()).show(*argv)
    if argv[0] == "ls-tree" and uses_theta(session) and not any(".theta" in arg for arg in argv):
        return _without_stores(argv)
    checked = overwrites.options(session, argv)
    told = uses_theta(session) and _ends_with_status(argv)
    with session.journal.driving():
        if argv[0] in _MOVES:
            session.journal.moving(*argv[1:], "refs/stash", "refs/stash^3")
        git = plain(Path.cwd(), marks=session.repo.marks)
        code = git.show(*checked, *argv[:2], *(["--quiet"] if told else []), *argv[2:])
        code = ended(session, code)
    after_git(session)
    if told and code in (0, 1):
        invoke("status", "theta.cli.status", [])
    return code


def _without_stores(argv: list[str]) -> int:
    """Print what ``git ls-tree`` lists, but for what is below ``.theta/``."""
    from theta.git.run import plain

    done = plain(Path.cwd()).run(*argv, check=False)
    end = "\0" if "-z" in argv else "\n"
    listed = done.text.split(end)[:-1]
    kept = [line for line in listed if not _STORED.match(line.rpartition("\t")[2])]
    if end == "\0":
        console.records(kept)
    elif kept:
        console.out(*kept)
    console.err(*done.stderr.decode("utf-8", "replace").splitlines())
    return done.code


def _ends_with_status(argv: list[str]) -> bool:
    """Whether git would end with its own status, which lists files below ``.theta/``."""
    is_applied = argv[0] == "stash" and argv[1:2] in (["pop"], ["apply"])
    return is_applied and not {"-q", "--quiet"} & set(argv)


def _misspelled(name: str) -> str:
    """What to say of a command that neither theta nor git has, nor an alias; empty for others."""
    from difflib import get_close_matches

    from theta.git.run import plain

    known = plain(Path.cwd()).run("--list-cmds=main,others,alias", check=False).text.split()
    if not known or name in known or name.startswith("-"):
        return ""
    if plain(Path.cwd()).run("config", "--get", "help.autocorrect", check=False).code == 0:
        return ""  # git may run what is nearest
    ours = [command for group in COMMANDS.values() for command in group]
    near = [*get_close_matches(name, ours, 3, 0.7), *get_close_matches(name, known, 3, 0.7)]
    words = ", ".join(f"'{one}'" for one in dict.fromkeys(near))
    return f"hint: did you mean {words}?" if near else "hint: theta --help lists the commands"


def _help(args: list[str]) -> int:
    if args and args[0] != "help":
        if module := _module(args[0]):
            return invoke(args[0], module, ["--help"])
        from theta.cli.topics import show_topic

        return show_topic(args[0])
    console.out("usage: theta [-C DIR] [--quiet] [--color WHEN] [--version] [--help] COMMAND [ARGS]", "")
    for group, commands in COMMANDS.items():
        console.out(group)
        for name, summary in commands.items():
            console.out(f"   {name:<13}{summary}")
        console.out("")
    console.out("git's options before the command hold too: -c KEY=VALUE, --git-dir DIR, --no-pager ...")
    console.out("Any other command is handed to git. 'theta help COMMAND' tells more;")
    console.out("'theta help format' and 'theta help design' are the manuals of the storage,")
    console.out("'theta help formats' lists the kinds of files that theta reads as tensors.")
    return 0
