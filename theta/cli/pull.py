"""``theta pull``."""

from __future__ import annotations

from theta.cli import before, console
from theta.cli.args import Given
from theta.cli.common import drive, open_session
from theta.cli.passing import Passing
from theta.porcelain.look import version_changes

app = Passing()


@app.command
def pull(given: Given) -> int:
    """Fetch and merge or rebase (git pull's options apply)."""
    session = open_session()
    asked = given.of_git()
    old = session.repo.head()
    told = not asked.known or any(map(asked.has, ("--quiet", "--stat", "-n", "--no-stat", "--verbose")))
    if not told:
        before.configure("merge.stat=false")  # git's would list the files below .theta/
    code = drive(session, "pull", *asked.given, hooks=True)
    new = session.again().repo.head()
    if not (told or code) and old and new and old != new:
        for line in version_changes.moved(session.again(), old, new):
            console.note(line)
    return code
