"""``theta pull``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from theta.cli import before, console, reports
from theta.cli.args import Given
from theta.cli.common import drive, open_session
from theta.cli.passing import Passing
from theta.lazy import Module
from theta.porcelain.look import version_changes

if TYPE_CHECKING:
    import typer
else:
    typer = Module("typer")

app = Passing(("--json",))


@app.command
def pull(
    given: Given,
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of HEAD as JSON.")] = False,
) -> int:
    """Fetch and merge or rebase (git pull's options apply)."""
    with reports.moved(as_json):
        return _pull(given)


def _pull(given: Given) -> int:
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
