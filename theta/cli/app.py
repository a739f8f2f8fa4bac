"""Finding and running a command, and turning errors into one line and an exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import Final

from theta import progress
from theta.cli import (
    aside,
    before,
    catalogue,
    console,
    failures,
    handing,
    invoking,
    paging,
    shell_words,
    terminal,
)
from theta.errors import ExitCode, ThetaError
from theta.lazy import imported


def run(argv: Sequence[str], *, alone: bool = False) -> int:
    """Run ``theta ARGV``; never raises, returns the exit code.

    ``alone``: the process is there for this command only, so that a git that does all of it may take its
    place.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the encoding lacks is printed as an escape; and what git prints comes in between.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    progress.fetches = terminal.fetches
    quiet = console.quiet
    try:
        code = _ended(lambda: _dispatch(list(argv), alone=alone))
        failures.compiled_in_vain()
        return _ended(console.flush) or code
    finally:
        console.quiet = quiet  # the option was of this command alone


def _ended(work: Callable[[], int | None]) -> int:
    """Do ``work``; returns its exit code, or that of the error that it ended with."""
    try:
        return work() or 0
    except ThetaError as error:
        failures.error(error)
        return int(error.exit_code)
    except KeyboardInterrupt:
        failures.interrupted()
        return int(ExitCode.INTERRUPTED)
    except (console.ReaderGoneError, BrokenPipeError):
        console.silence(sys.stdout)
        return int(ExitCode.BROKEN_PIPE)
    except Exception as error:
        return _damaged(error) or failures.bug(error)


def _damaged(error: Exception) -> int:
    """Tell an error of libgit2 that nothing foresaw: git's own files are damaged. 0 for any other error."""
    libgit2 = imported("pygit2")
    if libgit2 is None or not isinstance(error, libgit2.GitError):
        return 0
    from theta.errors import DamagedRepositoryError
    from theta.git.object_values import DAMAGED

    failures.error(DamagedRepositoryError(f"git's files cannot be read: {error}", hint=DAMAGED))
    return int(ExitCode.DAMAGED_REPOSITORY)


def _dispatch(argv: list[str], *, alone: bool) -> int:
    if argv[:1] in (["--complete"], ["--show-completion"]):
        return shell_words.asked(argv)
    argv = before.taken(argv)
    if not argv or argv[0] in ("--help", "-h"):
        return _help(argv[1:] if argv else [])
    name, args = argv[0], argv[1:]
    if name in ("--version", "-v"):
        from theta._version import __version__

        console.out(f"theta {__version__}")
        return 0
    if name == "help":
        return paging.report(name, lambda: _help(args))
    if name in catalogue.PLUMBING and (code := invoking.by_git(name, args)) is not None:
        return code
    name, module, args = catalogue.spelled_out(name, args)
    if any("@" in word for word in args):
        from theta.cli import run_words

        args = run_words.named(args) if name in run_words.COMMANDS else args
    if module is None or name in paging.NAMES:
        paging.begin(name)
    if handing.is_gits(name) and (code := aside.by_git(name, args, alone=alone)) is not None:
        return code
    if alone and handing.is_gits_alone(name, args):
        handing.become_git([name, *args])
    if module:
        return paging.report(name, lambda: invoking.invoke(name, module, args))
    return handing.hand_over([name, *args])


_OVERVIEW: Final = ("help", "-h", "--help", "-a", "--all", "commands")
_TOPICS: Final = ("topics", "-g", "--guides")
"""Words behind ``theta help``; the options are those of ``git help``."""


def _help(args: list[str]) -> int:
    if args and args[0] not in _OVERVIEW:
        name, module, _ = catalogue.spelled_out(args[0], args[1:])
        if module:
            return invoking.invoke(name, module, ["--help"])
        from theta.cli import topics

        return topics.show_list() if args[0] in _TOPICS else topics.show_topic(args[0])
    catalogue.show()
    return 0
