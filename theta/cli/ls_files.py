"""``theta ls-files``."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from theta.cli import console
from theta.cli.args import PASS, plain, split_paths
from theta.cli.common import open_session
from theta.cli.foreign import quoted

_LISTS = ("-z", "-t", "-c", "--cached")

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def ls_files(context: typer.Context) -> int:
    """List the files that theta tracks, from here (git ls-files' options and pathspecs apply)."""
    session = open_session()
    args = plain(context.args)
    git = session.repo.git().in_directory(Path.cwd())
    flags, paths = split_paths(args)
    if any(arg not in _LISTS and arg.startswith("-") for arg in flags):
        return git.show("ls-files", *args)
    from theta.git.attributes import only_tracked

    wanted = [arg for arg in flags if not arg.startswith("-")] + (paths or [])
    found = git.lines("ls-files", "-z", "--full-name", "--", *wanted)
    top = session.repo.worktree
    places = [os.path.relpath(top / path) for path in only_tracked(session.repo, dict.fromkeys(found))]
    if "-z" in flags:
        console.records(places)
    else:
        for path in places:
            console.out(quoted(path))
    return 0
