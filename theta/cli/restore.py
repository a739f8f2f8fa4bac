"""``theta restore``."""

from __future__ import annotations

from typing import Final

import typer

from theta.cli import deciding
from theta.cli.args import PASS, of_git
from theta.cli.common import drive, open_session
from theta.porcelain.commands import restoration

app = typer.Typer(add_completion=False)


_OURS: Final = ("--source", "--staged", "--worktree", "--ours", "--theirs", "--quiet", "--progress")
"""Options with which checkpoints are written by theta; with any other git restores, and theta fills in."""


@app.command(context_settings=PASS)
def restore(context: typer.Context) -> int:
    """Bring back checkpoints and files as they were (git restore's options and pathspecs apply).

    --source REV takes them from a commit, --staged restores the index, --ours and --theirs take a side of
    a conflict. A checkpoint is written whole or not at all: to a temporary file, made durable, renamed.
    """
    session = open_session()
    asked = of_git(context)
    if not asked.known or not asked.only(*_OURS):
        return drive(session, "restore", *asked.given)
    return restoration.restore(session, restoration.RestoreRequest(asked), deciding.Terminal()).code
