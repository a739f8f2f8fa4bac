"""``theta clone``."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, of_git
from theta.cli.common import fill_submodules, uses_theta

if TYPE_CHECKING:
    from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def clone(context: typer.Context) -> int:
    """Clone a repository, its checkpoints filled in (git clone's options apply).

    Filter, hooks and sparse patterns are set up, in submodules that are checked out too.
    """
    from theta.git.run import DEFER, Git
    from theta.porcelain.drive import cloning
    from theta.porcelain.workspace.session import Session

    asked, token = of_git(context), uuid.uuid4().hex
    args = asked.given
    if not asked.known:
        return Git(Path.cwd()).show("clone", *args)
    with contextlib.ExitStack() as stack:
        environment = dict(DEFER)
        # --sparse has patterns of its own, which leave .theta/ out.
        if not asked.has("--sparse"):
            environment["GIT_TEMPLATE_DIR"] = str(stack.enter_context(cloning.template()))
        code = Git(Path.cwd(), extra=environment).show("clone", "-c", f"{cloning.MARK}={token}", *args)
    if code:
        return code
    session = Session.here(cloning.find(token, args, Path.cwd()))
    session.repo.git().run("config", "--local", "--unset", cloning.MARK)
    if session.repo.is_bare or not uses_theta(session):
        cloning.drop_patterns(session.repo)
    if not session.repo.is_bare:
        _finish(session)
    return 0


def _finish(session: Session) -> None:
    """Set up the new clone, and fill in what git checked out."""
    from theta.porcelain.setup import installing
    from theta.porcelain.tensors import scanning
    from theta.porcelain.workspace import agreement

    with session.exclusive():
        installing.ensure(session.repo)
        console.hints(installing.ensure_durable(session.repo))
        if session.repo.head() is None or not session.repo.index_path.exists():
            return
        with console.progress("writing checkpoints") as progress:
            for line in agreement.settle(session, progress):
                console.warn(line)
        for line in scanning.warnings(session.repo.worktree, session.index):
            console.warn(line)
    fill_submodules(session)
