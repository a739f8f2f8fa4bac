"""``theta track``."""

from __future__ import annotations

from typing import Annotated

import typer

from theta.cli import console
from theta.cli.args import HELP, plain
from theta.cli.common import open_session

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def track(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="gitattributes patterns, such as '*.safetensors'")
    ] = None,
) -> int:
    """Track files that match PATTERN as checkpoints; without one, list the patterns.

    Writes the root .gitattributes and stages it, and sets up filter, hooks and sparse patterns in
    this clone. Files that are committed already become checkpoints with the next 'theta add'.
    """
    from theta.porcelain import install, tracking

    session = open_session()
    if not patterns:
        for pattern in tracking.patterns(session):
            console.out(pattern)
        return 0
    with session.exclusive():
        added = tracking.track(session, plain(patterns))
        console.hints(install.ensure_durable(session.repo))
    for pattern in added:
        console.note(f"tracking {pattern}")
    for path in tracking.raw_files(session):
        console.note(f"{path} is committed as plain bytes; 'theta add {path}' makes it a checkpoint")
    return 0
