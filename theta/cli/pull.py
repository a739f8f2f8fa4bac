"""``theta pull``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from theta.cli import before, console, reports
from theta.cli.args import Given
from theta.cli.common import drive, open_session
from theta.cli.passing import Passing
from theta.errors import UsageError
from theta.git.state_files import FETCH_HEAD
from theta.lazy import Module
from theta.porcelain.look import version_changes

if TYPE_CHECKING:
    import typer

    from theta.git.options import Arguments
    from theta.merging.strategies import strategy
    from theta.porcelain.commands import merge_request
else:
    merge_request = Module("theta.porcelain.commands.merge_request")
    strategy = Module("theta.merging.strategies.strategy")
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
    _refuse_strategies(asked)
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


def _refuse_strategies(asked: Arguments) -> None:
    """Refuse a strategy for tensors before anything is fetched: git merges, which does not know it."""
    if asked.has("--strategy"):  # all -X are its
        return
    given = (option.value for option in asked.options if option.name == "--strategy-option")
    for name in filter(merge_request.is_of_tensors, filter(None, given)):
        strategy.parse(name)  # there is none of a misspelt name at all
        words = " ".join(map(shlex.quote, asked.words))
        fetch, what = f"theta fetch {words}".rstrip(), f" {FETCH_HEAD}" if words else ""
        then = "rebase" if asked.has("--rebase") else "merge"
        told = f"pull has no strategy {name} for tensors: git merges what it fetched"
        raise UsageError(told, hint=f"{fetch} && theta {then} -X {shlex.quote(name)}{what}")
