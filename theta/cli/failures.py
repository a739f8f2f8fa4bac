"""Messages about errors, expected and unexpected."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from theta.cli import console
from theta.errors import ExitCode, RefusedError, ThetaError
from theta.git.quoting import one_line
from theta.lazy import Module, imported

if TYPE_CHECKING:
    import traceback

    from theta.porcelain.workspace import journal
else:
    journal = Module("theta.porcelain.workspace.journal")
    traceback = Module("traceback")


def error(problem: ThetaError) -> None:
    """Print an error on one line, and the way out on lines of hints; git's own words stay as they are."""
    text = str(problem) if isinstance(problem, RefusedError) else one_line(str(problem))
    console.err(*f"error: {text}".split("\n"))
    console.err(*(f"hint: {line}" for line in (*problem.details, problem.hint) if line))


def interrupted() -> None:
    """Say what becomes of a change that was interrupted: its journal is still there."""
    repo = console.repository
    if console.is_watched() and repo is not None and journal.Journal(repo).is_begun:
        console.err("hint: the next command of theta completes or undoes what this one began")


def compiled_in_vain() -> None:
    """Say so where kernels were compiled that could not be kept for the next command."""
    saved = imported("theta_native._saved")
    if saved is not None and saved.lost and not console.quiet:
        hint = "kernels are compiled anew each time; with NUMBA_CACHE_DIR=DIR they are kept in DIR"
        console.err(f"hint: {hint}")


def bug(problem: Exception) -> int:
    """Report an unexpected error as a bug of theta, with the place where it happened."""
    if isinstance(problem, OSError):
        from theta._fs import as_theta_error

        known = as_theta_error(problem, problem.filename or "the repository")
        error(known)
        return int(known.exit_code)
    if os.environ.get("THETA_LOG"):
        console.err(*"".join(traceback.format_exception(problem)).rstrip().split("\n"))
    place = traceback.extract_tb(problem.__traceback__)[-1]
    console.err(f"error: this is a bug in theta: {type(problem).__name__}: {one_line(str(problem))[:300]}")
    console.err(f"hint: it happened at {place.filename}:{place.lineno}; THETA_LOG=1 prints the whole trace")
    return int(ExitCode.BUG)
