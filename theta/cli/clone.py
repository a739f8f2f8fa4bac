"""``theta clone``."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from theta.cli import console
from theta.cli.args import PASS, plain

app = typer.Typer(add_completion=False)

# Options of git clone that take a value in the next argument.
_LONG = "branch origin upload-pack template reference reference-if-able separate-git-dir depth shallow-since"
_MORE = "shallow-exclude jobs filter config server-option bundle-uri ref-format"
_TAKES_VALUE = {"-b", "-o", "-u", "-j", "-c", *(f"--{name}" for name in f"{_LONG} {_MORE}".split())}


@app.command(context_settings=PASS)
def clone(context: typer.Context) -> int:
    """Clone a repository, its checkpoints filled in (git clone's options apply).

    Filter, hooks and sparse patterns are set up before the first checkout.
    """
    from theta.git.run import DEFER, Git
    from theta.porcelain import install, scanning, settle
    from theta.porcelain.session import Session

    args = plain(context.args)
    bare = {"--bare", "--mirror", "-n", "--no-checkout"} & set(args)
    git = Git(Path.cwd(), extra=DEFER)
    code = git.show("clone", *([] if bare else ["--no-checkout"]), *args)
    if code or {"--bare", "--mirror"} & set(args):
        return code
    session = Session.here(_directory(args))
    with session.exclusive():
        install.ensure(session.repo)
        console.hints(install.ensure_durable(session.repo))
        if bare or session.repo.head() is None:
            return 0
        code = session.repo.git().show("checkout", "--quiet")
        if code == 0:
            with console.progress("writing checkpoints") as progress:
                for line in settle.settle(session, progress):
                    console.warn(line)
            for line in scanning.warnings(session.repo.worktree, session.staged()):
                console.warn(line)
    return code


def _directory(args: list[str]) -> str:
    """Where git clone puts the repository: its second argument, or the name in the URL."""
    places, skip = [], False
    for arg in args:
        if skip:
            skip = False
        elif arg.startswith("-"):
            skip = arg in _TAKES_VALUE
        else:
            places.append(arg)
    if len(places) > 1:
        return places[1]
    name = places[0].rstrip("/").removesuffix("/.git").rstrip("/")
    name = os.path.basename(name.rsplit(":", 1)[-1] if "/" not in name else name)
    return name.removesuffix(".git").removesuffix(".bundle")
