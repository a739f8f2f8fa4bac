"""``theta clone``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from theta.cli import console, start
from theta.cli.args import Given
from theta.cli.passing import Passing
from theta.cli.terminal import Terminal
from theta.lazy import Module
from theta.porcelain.commands import clones

if TYPE_CHECKING:
    import typer
else:
    typer = Module("typer")

app = Passing(("--lazy",))


@app.command
def clone(
    given: Given,
    lazy: Annotated[
        bool,
        typer.Option("--lazy", help="Fetch the history, and tensors only when a command reads them."),
    ] = False,
) -> int:
    """Clone a repository, its checkpoints filled in (git clone's options apply).

    Filter, hooks and sparse patterns are set up, in submodules that are checked out too. With --lazy the
    checkpoints stay manifests until 'theta restore PATH' asks for them.
    """
    asked = given.of_git()
    start.compile_ahead()
    result = clones.clone(clones.CloneRequest(asked, Path.cwd(), lazy), Terminal())
    console.hints([] if asked.has("--quiet") else result.hints)
    for line in result.notes:
        console.warn(line)
    return result.code
