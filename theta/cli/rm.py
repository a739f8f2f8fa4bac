"""``theta rm``."""

from __future__ import annotations

from theta.cli.args import Given
from theta.cli.common import drive, open_session
from theta.cli.passing import Passing

app = Passing()


@app.command
def rm(given: Given) -> int:
    """Remove checkpoints and files from the worktree and the index (git rm's options apply)."""
    return drive(open_session(), "rm", *given.args)
