"""``theta restore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from theta.cli import console
from theta.cli.args import PASS, of_git
from theta.cli.common import drive, excluding, open_session
from theta.errors import UsageError

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)


_OURS: Final = ("--source", "--staged", "--worktree", "--ours", "--theirs", "--quiet", "--progress")
"""Options with which checkpoints are written by theta; with any other git restores, and theta fills in."""


@app.command(context_settings=PASS)
def restore(context: typer.Context) -> int:
    """Bring back checkpoints and files as they were (git restore's options and pathspecs apply).

    --source REV takes them from a commit, --staged restores the index, --ours and --theirs take a side of
    a conflict. A checkpoint is written whole or not at all: to a temporary file, made durable, renamed.
    """
    session = open_session()
    asked = of_git(context)
    if not asked.known or not asked.only(*_OURS):
        return drive(session, "restore", *asked.given)
    if asked.has("--ours") and asked.has("--theirs"):
        raise UsageError("--ours and --theirs do not go together")
    with session.exclusive():
        return _restore(session, asked)


def _restore(session: Session, asked: Arguments) -> int:
    from theta.porcelain.workspace import restoring

    paths, source = asked.words, asked.value("--source")
    staged, worktree = asked.has("--staged"), asked.has("--worktree")
    side = 2 if asked.has("--ours") else 3 if asked.has("--theirs") else 0
    git = session.repo.git().in_directory(Path.cwd())
    revision = source or ("HEAD" if staged else None)
    names = restoring.named(git, paths, revision)
    wanted = restoring.select(session, names, source, revision, side=side)
    if staged:
        restoring.unstage(session, wanted, source)
    with console.progress("restoring") as progress:
        restoring.fill(session, wanted if worktree or not staged else {}, progress)
    if wanted and names <= wanted.keys():
        return 0
    return git.show("restore", *asked.flags, "--", *paths, *excluding(wanted))
