"""Commands that are git's own, with theta's work done around them: one factory for all."""

from __future__ import annotations

from collections.abc import Callable

import typer

from theta.cli.args import PASS, plain
from theta.cli.common import drive, ended, open_session


def driven(name: str, doc: str, *, refresh: bool = True, hooks: bool = False) -> typer.Typer:
    """A typer app that runs ``git NAME`` with all its options, then settles checkpoints.

    ``hooks``: the command may rewrite commits, which only the hooks are told of.
    """

    def command(context: typer.Context) -> int:
        return drive(open_session(), name, *plain(context.args), refresh=refresh, hooks=hooks)

    return _app(command, doc)


def handed(name: str, doc: str, *, durable: bool = False) -> typer.Typer:
    """A typer app that runs ``git NAME`` and nothing else: it changes no files.

    ``durable``: remotes that are directories of this machine sync what they get.
    """

    def command(context: typer.Context) -> int:
        from pathlib import Path

        from theta.git import remotes

        session = open_session(worktree=False)
        settings = remotes.durable(session.repo) if durable else []
        with session.journal.driving():
            git = session.repo.git(extra={}).in_directory(Path.cwd())
            return ended(session, git.show(*settings, name, *plain(context.args)))

    return _app(command, doc)


def _app(command: Callable[[typer.Context], int], doc: str) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    command.__doc__ = doc
    app.command(context_settings=PASS)(command)
    return app
