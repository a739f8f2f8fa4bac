"""``theta add``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.cli.common import excluding, open_session, report_added

if TYPE_CHECKING:
    from theta.git.run import Git
    from theta.porcelain.adding import Selection

app = typer.Typer(add_completion=False)

_OURS = {"-v", "--verbose", "--sparse"}
"""Flags that leave the work to theta; with any other git does it, through the filter."""


@app.command(context_settings=PASS)
def add(
    context: typer.Context,
    everything: bool = typer.Option(False, "--all", "-A", help="stage all changes, deletions too"),
    update: bool = typer.Option(False, "--update", "-u", help="stage changes of known files only"),
    force: bool = typer.Option(False, "--force", "-f", help="stage ignored files too"),
) -> int:
    """Stage checkpoints and files (git add's options and pathspecs apply).

    A checkpoint is taken apart into tensors; only what is new is stored. Files of a tracked
    pattern that no reader understands are stored as plain bytes, byte-exact too.
    """
    from theta.cli.common import drive
    from theta.porcelain import adding

    args = plain(context.args)
    flags = [arg for arg in args if arg.startswith("-") and arg != "--"]
    paths = [arg for arg in args if not arg.startswith("-")]
    switches = [f for f, on in (("-A", everything), ("-u", update), ("-f", force)) if on]
    session = open_session()
    if set(flags) - _OURS:
        return drive(session, "add", *switches, *args)
    git = session.repo.git().in_directory(Path.cwd())
    pathspecs = paths or ([":(top)"] if everything or update else [])
    if not pathspecs:
        console.err("Nothing specified, nothing added.")
        return 0
    adding.check_pathspecs(session, git, paths)
    with session.exclusive():
        selection = adding.select(session, git, pathspecs, update=update, force=force)
        with console.progress("adding") as progress:
            added = adding.add(session, selection, progress)
        code = 0
        if _has_more(git, pathspecs, selection, force):
            code = git.show("add", *switches, *flags, "--", *pathspecs, *excluding(selection.present))
    report_added(added)
    return code


def _has_more(git: Git, pathspecs: list[str], selection: Selection, force: bool) -> bool:
    kinds = ["-m", "-d", "-o", "-u"] + ([] if force else ["--exclude-standard"])
    names = git.lines(
        "ls-files", "-z", "--full-name", *kinds, "--", *pathspecs, *excluding(selection.present)
    )
    return bool(names) or not (selection.present or selection.gone)
