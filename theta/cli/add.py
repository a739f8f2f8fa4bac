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
        "--weight=",
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
        list[str] | None,
        typer.Option(metavar="FILE", help="File of the update to apply, or directory of a PEFT adapter."),
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option(metavar="W", help="How much each --update-data counts; by default 1."),
    ] = None,
) -> int:
    """Stage checkpoints and files (git add's options and pathspecs apply).

    A checkpoint is taken apart into tensors; only what is new is stored. Files of a tracked
    pattern that no reader understands are stored as plain bytes, byte-exact too.
    With --update-data, the checkpoint's file becomes the updated model, and what is stored are the
    factors of the update. Several are added up, each with its --weight. A sharded model is named by its
    index, by the name it would have as one file, or by its folder.
    """
    session = open_session()
    asked = given.of_git()
    if update_type or update_data or weight:
        return _update(session, asked, update_type, update_data or [], weight or [])
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


def _update(session: Session, asked: Arguments, kind: str, data: list[str], weights: list[float]) -> int:
    """Apply the updates that the user brings to the one model named."""
    if not data:
        raise UsageError(
            "--update-type and --weight need --update-data",
            hint="without both, theta add finds by itself what kind of change a file holds",
        )
    if len(asked.words) != 1 or asked.options:
        raise UsageError("an update is for one model, and takes no other options")
    request = additions.UpdateRequest(asked.words[0], [*map(Path, data)], kind, weights)
    report_added(additions.update(session, request, Terminal()).added)
    return 0
