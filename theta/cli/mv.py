"""``theta mv``."""

from __future__ import annotations

import typer

from theta.cli.args import PASS, of_git
from theta.cli.common import drive, open_session
from theta.porcelain.workspace import tracking

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def mv(context: typer.Context) -> int:
    """Rename a checkpoint or a file (git mv's options apply); no tensor is stored again."""
    session = open_session()
    asked = of_git(context)
    tracking.check_moves(session, asked.words)
    return drive(session, "mv", *asked.given)
