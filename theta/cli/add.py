"""``theta add``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from theta.cli import console, reports, untold
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
    from theta.porcelain.commands.additions import AddResult
    from theta.porcelain.stage.staging import Added
    from theta.porcelain.workspace.session import Session
else:
    additions = Module("theta.porcelain.commands.additions")
    typer = Module("typer")

app = Passing(
    (
        "--update-type=",
        "--update-data=",
        "--weight=",
        "--json",
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
    as_json: Annotated[bool, typer.Option("--json", help="Print what was staged as JSON.")] = False,
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
        with reports.apart() if as_json else nullcontext():
            updated = _update(session, asked, update_type, update_data or [], weight or [])
        return _tell(session, updated, as_json)
    if not asked.known or not asked.only(*_OURS):
        if as_json:
            raise UsageError("--json is for what theta stages by itself", hint="theta add --json PATH...")
        return drive(session, "add", *asked.given)
    request = additions.AddRequest(asked)
    if not request.pathspecs:
        console.err("Nothing specified, nothing added.")
        return 0
    with reports.apart() if as_json else nullcontext():
        result = additions.add(session, request, Terminal())
    return _tell(session, result, as_json)


def _tell(session: Session, result: AddResult, as_json: bool) -> int:
    if as_json:
        rows = [_plain(one) for one in result.added]
        body = {"checkpoints": rows, "left_out": result.left_out, "uncovered": result.uncovered}
        body["to_lfs"] = list(result.to_lfs)
        reports.as_json("add", body)
        return result.code
    report_added(result.added)
    report_uncovered(session, result.uncovered)
    if result.to_lfs:
        untold.tell_of_lfs(session, result.to_lfs)
    report_left_out(session, result.left_out, "staged by -u")
    return result.code


def _plain(one: Added) -> dict[str, object]:
    """Return a checkpoint that was staged as plain data."""
    counts = {"tensors": len(one.manifest.lines), "new": list(one.new)}
    sizes = {"bytes": one.stat.st_size, "stored": one.stored}
    notes = [text for text in (one.note, one.warning) if text]
    return {"path": one.path, **counts, **sizes, "newcomer": one.newcomer, "notes": notes}


def _update(
    session: Session, asked: Arguments, kind: str, data: list[str], weights: list[float]
) -> AddResult:
    """Apply the updates that the user brings to the one model named."""
    if not data:
        raise UsageError(
            "--update-type and --weight need --update-data",
            hint="without both, theta add finds by itself what kind of change a file holds",
        )
    if len(asked.words) != 1 or asked.options:
        raise UsageError("an update is for one model, and takes no other options")
    request = additions.UpdateRequest(asked.words[0], [*map(Path, data)], kind, weights)
    return additions.update(session, request, Terminal())
