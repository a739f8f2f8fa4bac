"""``theta restore``."""

from __future__ import annotations

from typing import Final

from theta.cli.args import Given
from theta.cli.common import drive, open_session
from theta.cli.passing import Passing
from theta.cli.terminal import Terminal
from theta.porcelain.commands import restoration

app = Passing()


_OURS: Final = ("--source", "--staged", "--worktree", "--ours", "--theirs", "--quiet", "--progress")
"""Options with which checkpoints are written by theta; with any other git restores, and theta fills in."""


@app.command
def restore(given: Given) -> int:
    """Bring back checkpoints and files as they were (git restore's options and pathspecs apply).

    --source REV takes them from a commit, --staged restores the index, --ours and --theirs take a side of
    a conflict. A checkpoint is written whole or not at all.
    """
    session = open_session()
    asked = given.of_git()
    if not asked.known or not asked.only(*_OURS):
        return drive(session, "restore", *asked.given)
    return restoration.restore(session, restoration.RestoreRequest(asked), Terminal()).code
