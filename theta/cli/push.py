"""``theta push``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from theta.cli import console, reports
from theta.cli.args import Given
from theta.cli.common import open_session, told
from theta.cli.passing import Passing
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    import typer

    from theta.porcelain.share import pushing
else:
    typer = Module("typer")
    pushing = Module("theta.porcelain.share.pushing")

app = Passing(("--json",))


@app.command
def push(
    given: Given,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print bytes and parts as JSON.")
    ] = False,
) -> int:
    """Send commits to a remote (git push's options apply).

    A push above the limit of the host goes in parts, and goes on where it was cut. --dry-run tells the
    bytes and the parts. A push of more than the host can hold is refused before anything is sent.
    """
    session = open_session(worktree=False)
    request = pushing.PushRequest(given.of_git(), Path.cwd())
    note = _silent if request.line.known and request.line.has("--quiet") else console.note
    if as_json and not request.is_rehearsal:
        raise UsageError(
            "--json goes with --dry-run; git's is --porcelain", hint="theta push --dry-run --json"
        )
    with reports.apart(as_json):
        result = pushing.push(session, request, aloud=True, tell=note)
    if as_json and not result.done.code:
        reports.as_json("push", result.plan.as_json() if result.plan is not None else None)
        return told(result.done)
    if result.plan is not None and request.is_rehearsal:
        note(*result.plan.told())
    return told(result.done)


def _silent(*_lines: str) -> None:
    """Tell nothing."""
