"""``theta hook NAME``: what the hook scripts call."""

from __future__ import annotations

from typing import Annotated

import typer

from theta.cli import plumbing
from theta.cli.args import Given, plain
from theta.cli.passing import Passing

app = Passing(None)


@app.command
def hook(given: Given, name: Annotated[str, typer.Argument(help="The hook that git runs.")]) -> int:
    """Do theta's part of a git hook (the hook scripts run this)."""
    return plumbing.run_hook(*plain([name]), *given.args)
