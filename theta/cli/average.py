"""``theta average``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.lineage import averaging
else:
    averaging = Module("theta.porcelain.lineage.averaging")

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def average(
    revisions: Annotated[
        list[str] | None, typer.Argument(metavar="RANGE|REV...", help="Such as v1..main, or a b c.")
    ] = None,
    path: str = typer.Option("", "--path", help="The checkpoint; by default the only one."),
    shape: str = typer.Option(
        "uniform", "--shape", help="uniform, linear, cosine, inv-sqrt, wma or ema:0.99."
    ),
    last: int = typer.Option(0, "--last", min=0, metavar="N", help="Only the newest N versions."),
    out: str = typer.Option("", "--output", "-o", metavar="FILE", help="Write the mean to this file."),
    commit: bool = typer.Option(False, "--commit", help="Commit the mean on top of HEAD."),
    message: str = typer.Option("", "--message", "-m", help="The message of the commit."),
    dry_run: bool = typer.Option(
        False, "--dry-run", "-n", help="Show the versions, and how much each counts."
    ),
    replay: str = typer.Option(
        "", "--replay", metavar="REV", help="Compute a committed mean again; compare."
    ),
    force: bool = typer.Option(False, "--force", "-f", help="Overwrite an existing file."),
    as_json: bool = typer.Option(False, "--json", help="Print versions and result as JSON."),
) -> int:
    """Average versions of a checkpoint along the history.

    A range has the versions of its commits, the oldest first; commits that leave the checkpoint alone do
    not count twice. The shapes are those of model soups (uniform), of a learning rate that decays over the
    versions (linear, cosine, inv-sqrt: WSM), of a weighted (wma: PMA) and of an exponential (ema:DECAY)
    moving average. Values are added up in float64. The commit names all versions, so that --replay can
    compute it again.
    """
    if replay:
        return _again(replay, as_json)
    if not revisions or not (out or commit or dry_run):
        raise UsageError("name versions, and where their mean goes", hint="theta average v1..main --commit")
    session = open_session()
    request = averaging.AverageRequest(revisions, path, shape, last)
    found = averaging.plan(session, request)
    if dry_run and as_json:
        reports.as_json("average", _plain(found))
        return 0
    if dry_run:
        for oid, factor in zip(found.commits, found.factors, strict=True):
            console.out(f"{oid[:12]}  {factor:.6f}")
        return 0
    with terminal.progress("averaging") as progress:
        if out:
            averaging.write(session, found, Path.cwd() / out, force=force, progress=progress)
        new = averaging.commit(session, request, found, message, progress) if commit else ""
    if as_json:
        reports.as_json("average", {**_plain(found), "commit": new or None, "file": out or None})
        return 0
    count = len(found.averaging.names)
    console.note(f"{found.path}: {count} tensors are the mean of {len(found.commits)} versions ({shape})")
    if new:
        console.note(f"{new[:12]} is on {session.repo.branch}")
    return 0


def _plain(found: averaging.VersionPlan) -> dict[str, object]:
    """Return the versions as plain data, with how much each counts."""
    rows = zip(found.commits, found.factors, strict=True)
    versions = [{"commit": oid, "factor": factor} for oid, factor in rows]
    return {"path": found.path, "versions": versions, "tensors": len(found.averaging.names)}


def _again(revision: str, as_json: bool) -> int:
    session = open_session()
    with terminal.progress("averaging") as progress:
        same = averaging.again(session, session.repo.resolve(f"{revision}^{{commit}}"), progress)
    if same is None:
        raise UsageError(f"{revision} is no mean", hint="theta average --replay takes a commit of --commit")
    if as_json:
        reports.as_json("average", {"replayed": revision, "same": same})
        return int(not same)
    console.out(f"{revision} again: {'the same tensors' if same else 'other tensors'}")
    return int(not same)
