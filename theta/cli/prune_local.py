"""``theta prune-local``."""

from __future__ import annotations

import typer

from theta.cli import console
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.porcelain.share import pruning
from theta.units import human

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def prune_local(
    remote: str | None = typer.Argument(None, help="The remote; that of the branch by default."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would go, and change nothing."),
) -> int:
    """Drop the stored tensors that a remote has; a command that reads one fetches it again.

    The branches and tags of the remote are asked for now, and some tensors are fetched to see that it
    sends them. Files of the worktree, the history, and all that is not on the remote stay.
    """
    session = open_session(worktree=False)
    done = pruning.prune(session, pruning.PruneRequest(remote, dry_run))
    would = "would go" if dry_run else "went"
    console.note(f"{done.count} objects ({human(done.size)}) {would}; {done.remote} has them")
    return 0
