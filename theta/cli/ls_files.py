"""``theta ls-files``."""

from __future__ import annotations

from pathlib import Path

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.cli.common import open_session

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def ls_files(context: typer.Context) -> int:
    """List the files that theta tracks (git ls-files' options and pathspecs apply)."""
    session = open_session()
    args = plain(context.args)
    git = session.repo.git().in_directory(Path.cwd())
    if any(arg not in ("--", "-z", "-t", "-c", "--cached") and arg.startswith("-") for arg in args):
        return git.show("ls-files", *args)
    from theta.git.attributes import only_tracked

    paths = git.lines(
        "ls-files", "-z", "--full-name", "--", *[arg for arg in args if not arg.startswith("-")]
    )
    for path in only_tracked(session.repo, dict.fromkeys(paths)):
        console.out(path)
    return 0
