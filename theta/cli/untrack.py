"""``theta untrack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theta.cli import console
from theta.cli.args import HELP, plain
from theta.cli.common import open_session
from theta.porcelain.workspace import tracking

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def untrack(
    patterns: Annotated[list[str], typer.Argument(help="Patterns as 'theta track' lists them.")],
) -> int:
    """Stop tracking PATTERN: its files become plain files again with the next 'theta add'.

    PATTERN is one of the .gitattributes of the folder you are in.
    """
    session = open_session()
    with session.change():
        files = tracking.untrack(session, Path.cwd(), plain(patterns))
    for path in files:
        console.note(f"{path} will be committed as plain bytes")
    return 0
