"""``theta untrack``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.commands import patterns as requests
else:
    requests = Module("theta.porcelain.commands.patterns")

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def untrack(
    patterns: Annotated[list[str], typer.Argument(help="Patterns as 'theta track' lists them.")],
) -> int:
    """Stop tracking PATTERN: its files become plain files again with the next 'theta add'.

    PATTERN is a line of the .gitattributes in the current folder; 'theta track' lists all.
    """
    session = open_session()
    for path in requests.untrack(session, requests.TrackRequest(patterns)).plain:
        console.note(f"{path} will be committed as plain bytes")
    return 0
