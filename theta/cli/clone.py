"""``theta clone``."""

from __future__ import annotations

from pathlib import Path

import typer

from theta.cli import console, deciding
from theta.cli.args import PASS, of_git
from theta.porcelain.commands import clones

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def clone(context: typer.Context) -> int:
    """Clone a repository, its checkpoints filled in (git clone's options apply).

    Filter, hooks and sparse patterns are set up, in submodules that are checked out too.
    """
    result = clones.clone(clones.CloneRequest(of_git(context), Path.cwd()), deciding.Terminal())
    console.hints(result.hints)
    for line in result.notes:
        console.warn(line)
    return result.code
