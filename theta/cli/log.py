"""``theta log``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.cli.common import open_session
from theta.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from theta.porcelain.history import Logged

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def log(
    context: typer.Context,
    stat: bool = typer.Option(False, "--stat", help="what each commit changed, by tensor"),
    tensor: str | None = typer.Option(
        None, "--tensor", help="only commits that changed tensors matching GLOB"
    ),
    as_json: bool = typer.Option(False, "--json", help="commits and tensors as JSON"),
    number: int | None = typer.Option(None, "-n", "--max-count", help="at most this many commits"),
) -> int:
    """Show the history, without the files below .theta/ (git log's options and pathspecs apply)."""
    from theta.porcelain import diffing, history

    session = open_session(worktree=False)
    args = plain(context.args)
    count = ["-n", str(number)] if number is not None else []
    if session.repo.head() is None and not [arg for arg in args if not arg.startswith("-")]:
        raise NotFoundError("your current branch does not have any commits yet")
    if "--" not in args:
        diffing.split_arguments(session, [arg for arg in args if not arg.startswith("-")], Path.cwd())
    if not (stat or tensor or as_json):
        return session.repo.git().in_directory(Path.cwd()).show("log", *count, *history.without_stores(args))
    if "--graph" in args:
        raise UsageError("--graph does not go with --stat, --tensor or --json")
    commits = history.commits(session, Path.cwd(), [*count, *args])
    return _print(history.changed(session, commits, tensor), as_json=as_json)


def _print(found: Iterable[Logged], *, as_json: bool) -> int:
    if as_json:
        console.out(json.dumps({"theta.log/v1": [item.as_json() for item in found]}))
        return 0
    for item in found:
        console.out(
            f"commit {item.commit}",
            f"Author: {item.author}",
            f"Date:   {item.date}",
            "",
            f"    {item.subject}",
            "",
        )
        for path, changes in item.checkpoints.items():
            console.out(f" {path} | {changes.summary()}")
        if item.files:
            console.out(f" {item.files} other file(s)")
        console.out()
    return 0
