"""``theta uninstall``."""

from __future__ import annotations

from pathlib import Path

import typer

from theta import _fs
from theta.cli import console, for_shells
from theta.cli.args import HELP
from theta.cli.install import user_data, user_launcher
from theta.git.run import plain
from theta.porcelain.setup import installing as setup
from theta.porcelain.setup import review_tools
from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def uninstall(
    everywhere: bool = typer.Option(False, "--global", help="Remove the filter of this user."),
) -> int:
    """Take theta's filter and hooks out of this clone; commits and files stay."""
    if everywhere:
        for key in (*setup.settings(), *review_tools.ENTRIES):
            plain(Path.cwd()).run("config", "--global", "--unset", key, check=False)
        _fs.remove(user_launcher())
        for_shells.remove(user_data())
        console.note("the filter of this user is removed, and what 'theta install --shell' set up")
        return 0
    session = Session.here(".")
    _ = session.repo.worktree
    with session.change():
        setup.uninstall(session.repo)
    console.note("filter and hooks are removed from this clone")
    if session.head:
        console.hints(
            ["its commits still hold manifests; 'theta export-history --as raw' makes plain files of them"]
        )
    return 0
