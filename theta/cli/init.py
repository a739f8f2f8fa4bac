"""``theta init``."""

from __future__ import annotations

from pathlib import Path

from theta.cli import console, start
from theta.cli.args import Given
from theta.cli.passing import Passing
from theta.git.run import plain as git
from theta.porcelain.setup import installing
from theta.porcelain.workspace.session import Session

app = Passing()


@app.command
def init(given: Given) -> int:
    """Make a new Git repository that is ready for checkpoints (git init's options apply).

    In a repository that exists, 'theta track' alone is enough.
    """
    asked = given.of_git()
    # Git 3 makes SHA-256 and a reftable by default; libgit2 opens neither, and git itself takes longer.
    code = git(Path.cwd()).show(
        "-c", "init.defaultObjectFormat=sha1", "-c", "init.defaultRefFormat=files", "init", *asked.given
    )
    if code or asked.has("--bare"):
        return code
    start.compile_ahead()
    session = Session.here(asked.words[-1] if asked.words else ".")
    installing.ensure(session.repo)
    hints = installing.ensure_durable(session.repo)
    if not asked.has("--quiet"):
        console.hints(hints)
        console.note("next: theta track '*.safetensors'")
    return 0
