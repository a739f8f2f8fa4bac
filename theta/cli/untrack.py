"""``theta untrack``."""

from __future__ import annotations

from typing import Annotated

import typer

from theta.cli import console
from theta.cli.args import HELP, plain
from theta.cli.common import open_session

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def untrack(
    patterns: Annotated[list[str], typer.Argument(help="patterns as 'theta track' lists them")],
) -> int:
    """Stop tracking PATTERN: its files become plain files again with the next 'theta add'."""
    from theta.porcelain import tracking

    session = open_session()
    with session.exclusive():
        files = tracking.untrack(session, plain(patterns))
    for path in files:
        console.note(f"{path} will be committed as plain bytes")
    return 0
