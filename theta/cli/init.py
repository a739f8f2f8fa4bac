"""``theta init``."""

from __future__ import annotations

from pathlib import Path

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.git.run import plain as git
from theta.porcelain.setup import installing
from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def init(context: typer.Context) -> int:
    """Make a new Git repository that is ready for checkpoints (git init's options apply).

    In a repository that exists, 'theta track' alone is enough.
    """
    args = plain(context.args)
    # Git 3 makes SHA-256 and a reftable by default; libgit2 opens neither, and git itself takes longer.
    code = git(Path.cwd()).show(
        "-c", "init.defaultObjectFormat=sha1", "-c", "init.defaultRefFormat=files", "init", *args
    )
    if code or "--bare" in args:
        return code
    places = [arg for arg in args if not arg.startswith("-")]
    session = Session.here(places[-1] if places else ".")
    installing.ensure(session.repo)
    console.hints(installing.ensure_durable(session.repo))
    console.note("next: theta track '*.safetensors'")
    return 0
