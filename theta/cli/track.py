"""``theta track``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theta.cli import console
from theta.cli.args import HELP, plain
from theta.cli.common import open_session
from theta.porcelain.setup import installing
from theta.porcelain.workspace import tracking

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def track(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Patterns of gitattributes, such as '*.safetensors'.")
    ] = None,
) -> int:
    """Track files that match PATTERN as checkpoints; without one, list the patterns.

    Writes the .gitattributes of the folder you are in (patterns are relative to it) and stages it,
    and sets up filter, hooks and sparse patterns in this clone. The name of a file or of a folder
    stands for itself, whatever characters it has. Lines of Git LFS for the same pattern are
    replaced. Files that are committed already become checkpoints with the next 'theta add'.
    """
    session = open_session()
    if not patterns:
        for pattern in tracking.listed(session):
            console.out(str(pattern))
        return 0
    with session.change():
        done = tracking.track(session, Path.cwd(), plain(patterns))
        console.hints(installing.ensure_durable(session.repo))
    for name in done.new:
        console.note(f"tracking {name}")
    for name in done.unmatched:
        console.note(f"no file matches {name} yet")
    if done.ignored:
        console.warn(_ignored(done.ignored))
    for path in tracking.raw_files(session):
        console.note(f"{path} is committed as plain bytes; 'theta add {path}' makes it a checkpoint")
    return 0


def _ignored(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (
        f"{paths[0]}{more} would match, but .gitignore excludes it: git and theta leave ignored files out"
        f" ('theta add -f' takes one)"
    )
