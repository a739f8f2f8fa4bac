"""``theta prune-local``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.porcelain.share import pruning
from theta.units import human

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def prune_local(
    remote: str | None = typer.Argument(None, help="The remote; that of the branch by default."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would go, and change nothing."),
    sample: bool = typer.Option(
        False, "--sample", help="Trust a host of which some of the tensors are fetched, not all."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print what went as JSON."),
) -> int:
    """Drop the stored tensors that a remote has; a command that reads one fetches it again.

    Nothing goes that the remote is not proven to have. One on this disk is looked at; from any other all
    that is to go is fetched once and hashed. Files of the worktree, the history, and the rest stay.
    """
    session = open_session(worktree=False)
    with terminal.progress("proving") as progress:
        done = pruning.prune(session, pruning.PruneRequest(remote, dry_run, sample), progress)
    if as_json:
        reports.as_json("prune-local", {**asdict(done), "dry_run": dry_run})
        return 0
    would = "would go" if dry_run else "went"
    has = f"{done.remote} has them" if done.proven else f"what {done.remote} has is not proven yet"
    console.note(f"{done.count} objects ({human(done.size)}) {would}; {has}")
    return 0
