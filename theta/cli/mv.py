"""``theta mv``."""

from __future__ import annotations

import os

import typer

from theta.cli.args import PASS, of_git
from theta.cli.common import drive, from_root, open_session
from theta.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def mv(context: typer.Context) -> int:
    """Rename a checkpoint or a file (git mv's options apply); no tensor is stored again."""
    from theta.git.attributes import only_tracked

    session = open_session()
    asked = of_git(context)
    paths = asked.words
    staged = session.index
    for source in paths[:-1]:
        target = os.path.join(paths[-1], os.path.basename(source)) if os.path.isdir(paths[-1]) else paths[-1]
        if from_root(session, source) in staged and not only_tracked(
            session.repo, [from_root(session, target)]
        ):
            raise UsageError(f"{target} would not be tracked", hint=f"theta track {os.path.basename(target)}")
    return drive(session, "mv", *asked.given)
