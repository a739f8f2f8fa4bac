"""``theta filter-process``: git's long-running clean/smudge filter."""

from __future__ import annotations

import typer

from theta.cli import plumbing
from theta.cli.args import HELP

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def filter_process() -> int:
    """Serve git's filter protocol on standard input and output (git runs this)."""
    return plumbing.serve_filter()
