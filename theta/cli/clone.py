"""``theta clone``."""

from __future__ import annotations

from pathlib import Path

from theta.cli import console, start
from theta.cli.args import Given
from theta.cli.passing import Passing
from theta.cli.terminal import Terminal
from theta.porcelain.commands import clones

app = Passing()


@app.command
def clone(given: Given) -> int:
    """Clone a repository, its checkpoints filled in (git clone's options apply).

    Filter, hooks and sparse patterns are set up, in submodules that are checked out too.
    """
    start.compile_ahead()
    result = clones.clone(clones.CloneRequest(given.of_git(), Path.cwd()), Terminal())
    console.hints(result.hints)
    for line in result.notes:
        console.warn(line)
    return result.code
