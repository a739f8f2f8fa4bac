"""``theta mv``."""

from __future__ import annotations

from theta.cli.args import Given
from theta.cli.common import drive, open_session
from theta.cli.passing import Passing
from theta.porcelain.workspace import tracking

app = Passing()


@app.command
def mv(given: Given) -> int:
    """Rename a checkpoint or a file (git mv's options apply); no tensor is stored again."""
    session = open_session()
    asked = given.of_git()
    tracking.check_moves(session, asked.words)
    return drive(session, "mv", *asked.given)
