"""``theta hook NAME``: what the hook scripts call."""

from __future__ import annotations

import typer

from theta.cli import plumbing
from theta.cli.args import PASS, plain

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def hook(context: typer.Context, name: str = typer.Argument(..., help="The hook that git runs.")) -> int:
    """Do theta's part of a git hook (the hook scripts run this)."""
    return plumbing.run_hook(*plain([name, *context.args]))
