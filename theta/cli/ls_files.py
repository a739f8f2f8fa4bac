"""``theta ls-files``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from theta.cli import console, reports
from theta.cli.args import Given
from theta.cli.common import open_session
from theta.cli.passing import Passing
from theta.errors import UsageError
from theta.git.attributes import only_tracked
from theta.git.quoting import quoted
from theta.lazy import Module

if TYPE_CHECKING:
    import typer
else:
    typer = Module("typer")

_LISTS = ("-z", "-t", "--cached")

app = Passing(("--json",))


@app.command
def ls_files(
    given: Given,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> int:
    """List the files that theta tracks, from here (git ls-files' options and pathspecs apply)."""
    session = open_session()
    asked = given.of_git()
    git = session.repo.git().in_directory(Path.cwd())
    if not asked.known or not asked.only(*_LISTS):
        if as_json:
            raise UsageError("--json goes with no other form of the list")
        return git.show("ls-files", *asked.given)
    found = git.lines("ls-files", "-z", "--full-name", "--", *asked.words)
    top = session.repo.worktree
    places = [os.path.relpath(top / path) for path in only_tracked(session.repo, dict.fromkeys(found))]
    if as_json:
        reports.as_json("ls-files", places)
    elif asked.has("-z"):
        console.records(places)
    else:
        for path in places:
            console.out(quoted(path))
    return 0
