"""``theta install``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta._kernels import warming
from theta.cli import console, for_shells, start, terminal
from theta.cli.args import HELP
from theta.cli.common import fill_submodules, uses_theta
from theta.errors import ThetaError
from theta.git.run import plain
from theta.porcelain.drive import cloning
from theta.porcelain.setup import installing as setup
from theta.porcelain.setup import launcher, review_tools
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session

if TYPE_CHECKING:
    from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)


def user_data() -> Path:
    """Return the folder of this user's data (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def user_launcher() -> Path:
    """Return the place of this user's launcher."""
    return user_data() / "theta" / launcher.NAME


@app.command(context_settings=HELP)
def install(
    everywhere: bool = typer.Option(
        False, "--global", help="Install the filter for all repositories of this user."
    ),
    submodules: bool = typer.Option(
        False, "--recurse-submodules", help="Install in submodules too, and fill in their checkpoints."
    ),
    warm: bool = typer.Option(
        False, "--warm", help="Only compile the kernels, now, for all repositories of this user."
    ),
    shell: bool = typer.Option(
        False, "--shell", help="Only set up completion and manual pages, for all shells of this user."
    ),
) -> int:
    """Set up filter, hooks, attributes and sparse patterns in this clone.

    'theta track' and 'theta clone' do it too. 'theta install' alone also makes theta a tool of
    'git difftool --tool=theta' and 'git mergetool --tool=theta'.

    With --global plain 'git clone' fills checkpoints in.
    With --warm, which needs no repository, no later command waits for a compiler: for images of
    containers, where NUMBA_CACHE_DIR may name a folder for all users. With --shell, which needs none
    either, shells complete commands, revisions, paths and tensors, and 'man theta-merge' works.
    """
    if shell:
        return for_shells.install(user_data())
    if warm:
        return _compile()
    start.compile_ahead()
    if everywhere:
        setup.ensure_launcher(user_launcher())
        entries = setup.settings(launcher.GLOBAL_FILTER) | review_tools.ENTRIES
        for key, value in entries.items():
            plain(Path.cwd()).run("config", "--global", key, value)
        console.note("the filter is set up for all repositories of this user")
        return 0
    session = Session.here(".")
    _ = session.repo.worktree
    with session.change():
        setup.ensure(session.repo, anew=True)
        setup.ensure_tools(session.repo)
        console.hints(setup.ensure_durable(session.repo))
    console.note(f"filter and hooks are set up in {session.repo.gitdir}")
    if submodules:
        fill_submodules(session)
    for line in _left(session, submodules):
        console.note(line)
    if not for_shells.is_installed(user_data()):
        console.note("'theta install --shell' sets up completion and manual pages")
    return 0


def _compile() -> int:
    """Compile all kernels and print their number."""
    work = warming.everything()
    with terminal.fetches() as show:
        while (done := next(work)) is None:
            if show:
                show(f"compiling kernels: {warming.compiled()} of {warming.total()}")
    if not done:
        raise ThetaError(
            "not all kernels could be compiled and kept",
            hint="is the directory that NUMBA_CACHE_DIR names, or ~/.cache, writable, with room for 10 MB?",
        )
    console.note(f"{warming.total()} kernels are compiled")
    return 0


def _left(session: Session, submodules: bool) -> Iterator[str]:
    """Yield a line for each thing left to do: checkpoints that are manifests, and submodules."""
    root = session.repo.worktree
    unfilled = [path for path in session.index if worktree.peek(root / path) is not None]
    if unfilled:
        yield f"{len(unfilled)} checkpoint(s) are manifests here; 'theta restore :/' fills them in"
    for inner in cloning.submodules(session) if not submodules else ():
        if uses_theta(inner) and not (inner.repo.commondir / "info" / "theta-launcher").is_file():
            path = os.path.relpath(inner.repo.worktree, root)
            yield f"the submodule {path} has checkpoints; 'theta install --recurse-submodules' fills them in"
