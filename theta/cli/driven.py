"""Commands that are git's own, with theta's work done around them: one factory for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from theta.cli import reports
from theta.cli.args import Given
from theta.cli.common import drive, open_session, told
from theta.cli.passing import Passing
from theta.lazy import Module

if TYPE_CHECKING:
    import typer
else:
    typer = Module("typer")


def driven(name: str, doc: str, *, refresh: bool = True, hooks: bool = False) -> Passing:
    """Return a command that runs ``git NAME`` with all its options, then settles checkpoints.

    ``hooks``: the command may rewrite commits, and git tells only its hooks which.
    """

    def command(
        given: Given,
        as_json: Annotated[bool, typer.Option("--json", help="Print what became of HEAD as JSON.")] = False,
    ) -> int:
        with reports.moved(as_json):
            return drive(open_session(), name, *given.args, refresh=refresh, hooks=hooks)

    return _app(command, doc, "--json")


def handed(name: str, doc: str) -> Passing:
    """Return a command that runs ``git NAME`` and nothing else: it changes no files."""

    def command(given: Given) -> int:
        from pathlib import Path

        from theta.porcelain.drive import running

        session = open_session(worktree=False)
        with session.journal.driving():
            git = session.repo.git(extra={}).in_directory(Path.cwd())
            done = running.ended(session, git.show(name, *given.args))
        return told(done)

    return _app(command, doc)


def _app(command: Callable[..., int], doc: str, *own: str) -> Passing:
    app = Passing(own)
    command.__doc__ = doc
    app.command(command)
    return app
