"""``theta install``."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from theta.cli import console
from theta.cli.args import HELP

app = typer.Typer(add_completion=False)


def user_launcher() -> Path:
    """Where the launcher for all repositories of this user is (XDG Base Directory Specification)."""
    from theta.porcelain.launcher import NAME

    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "theta" / NAME


@app.command(context_settings=HELP)
def install(
    everywhere: bool = typer.Option(False, "--global", help="the filter for all repositories of this user"),
) -> int:
    """Set up filter, hooks, attributes and sparse patterns in this clone.

    'theta track' and 'theta clone' do it too. With --global plain 'git clone' fills checkpoints in.
    """
    from theta.git.run import plain
    from theta.porcelain import install as setup
    from theta.porcelain import launcher
    from theta.porcelain.session import Session

    if everywhere:
        launcher.ensure(user_launcher())
        for key, value in setup.settings(launcher.GLOBAL_FILTER).items():
            plain().run("config", "--global", key, value)
        console.note("the filter is set up for all repositories of this user")
        return 0
    session = Session.here()
    _ = session.repo.worktree
    with session.exclusive():
        setup.ensure(session.repo)
        console.hints(setup.ensure_durable(session.repo))
    console.note(f"filter and hooks are set up in {session.repo.gitdir}")
    return 0
