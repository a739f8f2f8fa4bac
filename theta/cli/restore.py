"""``theta restore``."""

from __future__ import annotations

from pathlib import Path

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.cli.common import excluding, open_session
from theta.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def restore(
    context: typer.Context,
    source: str | None = typer.Option(
        None, "--source", "-s", help="take the version of this commit, not of the index"
    ),
    staged: bool = typer.Option(False, "--staged", "-S", help="restore the index"),
    worktree: bool = typer.Option(False, "--worktree", "-W", help="restore the files (the default)"),
    ours: bool = typer.Option(False, "--ours", help="in a conflict: our side"),
    theirs: bool = typer.Option(False, "--theirs", help="in a conflict: their side"),
) -> int:
    """Bring back checkpoints and files as they were (git restore's options and pathspecs apply).

    A checkpoint is written whole or not at all: to a temporary file, made durable, renamed.
    """
    from theta.porcelain import restoring

    if ours and theirs:
        raise UsageError("--ours and --theirs do not go together")
    args = plain(context.args)
    paths = [arg for arg in args if not arg.startswith("-")]
    flags = [arg for arg in args if arg.startswith("-") and arg != "--"]
    session = open_session()
    git = session.repo.git().in_directory(Path.cwd())
    options = [*(["--source", source] if source else []), *(["--staged"] if staged else [])]
    options += [
        *(["--worktree"] if worktree else []),
        *(["--ours"] if ours else []),
        *(["--theirs"] if theirs else []),
    ]
    side = 2 if ours else 3 if theirs else 0
    with session.exclusive():
        wanted = restoring.select(session, git, paths, source, staged=staged, worktree=worktree, side=side)
        if staged:
            restoring.unstage(session, wanted, source)
        with console.progress("restoring") as progress:
            restoring.fill(session, wanted if worktree or not staged else {}, progress)
        code = 0
        if flags or not wanted or restoring.names_more(git, paths, wanted, source):
            code = git.show("restore", *options, *flags, "--", *paths, *excluding(wanted))
    return code
