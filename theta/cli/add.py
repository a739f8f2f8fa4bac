"""``theta add``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from theta.cli import console
from theta.cli.args import Given
from theta.cli.common import (
    drive,
    open_session,
    report_added,
    report_left_out,
    report_uncovered,
)
from theta.cli.passing import Passing
from theta.cli.terminal import Terminal
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    import typer

    from theta.git.options import Arguments
    from theta.porcelain.commands import additions
    from theta.porcelain.workspace.session import Session
else:
    additions = Module("theta.porcelain.commands.additions")
    typer = Module("typer")

app = Passing(
    (
        "--update-type=",
        "--update-data=",
    )
)

_OURS: Final = ("--all", "--update", "--force", "--verbose", "--sparse")
"""Options that leave the work to theta; with any other git does it, through the filter."""


@app.command
def add(
    given: Given,
    update_type: Annotated[
        str, typer.Option(metavar="KIND", help="Kind of the update: low-rank, sparse, ia3, scaled or dense.")
    ] = "",
    update_data: Annotated[
        str, typer.Option(metavar="FILE", help="File of the update to apply, or directory of a PEFT adapter.")
    ] = "",
) -> int:
    """Stage checkpoints and files (git add's options and pathspecs apply).

    A checkpoint is taken apart into tensors; only what is new is stored. Files of a tracked
    pattern that no reader understands are stored as plain bytes, byte-exact too.
    With --update-data, the checkpoint's file becomes the updated model, and what is stored are the
    factors of the update.
    """
    session = open_session()
    asked = given.of_git()
    if update_type or update_data:
        return _update(session, asked, update_type, update_data)
    if not asked.known or not asked.only(*_OURS):
        return drive(session, "add", *asked.given)
    request = additions.AddRequest(asked)
    if not request.pathspecs:
        console.err("Nothing specified, nothing added.")
        return 0
    result = additions.add(session, request, Terminal())
    report_added(result.added)
    report_uncovered(session, result.uncovered)
    report_left_out(session, result.left_out, "staged by -u")
    return result.code


def _update(session: Session, asked: Arguments, kind: str, data: str) -> int:
    """Apply an update that the user brings to the one checkpoint named."""
    if not data:
        raise UsageError(
            "--update-type needs --update-data",
            hint="without both, theta add finds by itself what kind of change a file holds",
        )
    if len(asked.words) != 1 or asked.options:
        raise UsageError("an update is for one checkpoint, and takes no other options")
    request = additions.UpdateRequest(asked.words[0], Path(data), kind)
    report_added(additions.update(session, request, Terminal()).added)
    return 0
