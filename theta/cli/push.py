"""``theta push``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from theta.cli import console
from theta.cli.args import Given
from theta.cli.common import open_session, told
from theta.cli.passing import Passing
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.share import pushing
else:
    pushing = Module("theta.porcelain.share.pushing")

app = Passing()


@app.command
def push(given: Given) -> int:
    """Send commits to a remote (git push's options apply).

    A push above the limit of the host goes in parts, and goes on where it was cut. --dry-run tells the
    bytes and the parts. A push of more than the host can hold is refused before anything is sent.
    """
    session = open_session(worktree=False)
    request = pushing.PushRequest(given.of_git(), Path.cwd())
    note = _silent if request.line.known and request.line.has("--quiet") else console.note
    result = pushing.push(session, request, aloud=True, tell=note)
    if result.plan is not None and request.is_rehearsal:
        note(*result.plan.told())
    return told(result.done)


def _silent(*_lines: str) -> None:
    """Tell nothing."""
