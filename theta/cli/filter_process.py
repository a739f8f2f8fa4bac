"""``theta filter-process``: git's long-running clean/smudge filter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from theta.cli import console
from theta.cli.args import HELP

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def filter_process() -> int:
    """Serve git's filter protocol on standard input and output (git runs this)."""
    from theta.git.pktline import PktLines
    from theta.porcelain.plain_git.filtering import SMUDGE_LIMIT, Filter, serve
    from theta.porcelain.workspace.session import Session

    limit = int(os.environ.get("THETA_SMUDGE_LIMIT", SMUDGE_LIMIT))
    defer = os.environ.get("THETA_SMUDGE") == "defer"
    session = Session.here(".")
    filter_ = Filter(
        session,
        lambda text: console.err(f"theta: {text}"),
        defer,
        limit,
        Path(index).absolute() if (index := os.environ.get("GIT_INDEX_FILE")) else None,
        lambda: console.progress("theta"),
        looking=session.repo.is_read_only and not os.environ.get("GIT_OBJECT_DIRECTORY"),
    )
    serve(filter_, PktLines(sys.stdin.buffer, sys.stdout.buffer))
    return 0
