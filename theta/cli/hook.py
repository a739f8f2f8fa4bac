"""``theta hook NAME``: what the hook scripts call."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.errors import ThetaError

if TYPE_CHECKING:
    from theta.porcelain.workspace.session import Session
    from theta.progress import Progress

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def hook(context: typer.Context, name: str = typer.Argument(..., help="The hook that git runs.")) -> int:
    """Do theta's part of a git hook (the hook scripts run this)."""
    from theta.porcelain.workspace.session import Session

    session = Session.here(".")
    index = Path(os.environ.get("GIT_INDEX_FILE") or session.repo.index_path)
    with console.progress("theta") as progress:
        name, *args = plain([name, *context.args])
        lines = _run(session, name, args, index.absolute(), progress)
    for line in lines:
        console.err(f"theta: {line}")
    return 0


def _run(session: Session, name: str, args: list[str], index: Path, progress: Progress | None) -> list[str]:
    from theta.porcelain.plain_git import hooks as steps

    if name == "guard":
        return _guard(session)
    if name == "pre-commit":
        return steps.pre_commit(session, index, alone=os.environ.get("THETA_SMUDGE") != "defer")
    if name == "prepare-commit-msg":
        return steps.prepare_commit_msg(session, index, args)
    if name == "pre-merge-commit":
        return steps.pre_merge_commit(session, index)
    if name == "post-rewrite":
        return steps.post_rewrite(session, [(row[0], row[1]) for row in _rows(2)], progress)
    if name == "pre-push":
        return steps.pre_push(session, [(row[1], row[3]) for row in _rows(4)])
    if name in steps.SIMPLE:
        return steps.SIMPLE[name](session, progress)
    raise ThetaError(f"theta has no part in the hook {name}")


def _guard(session: Session) -> list[str]:
    """Tell the guard of plain git whether a file is in the way of the git whose words it passes on."""
    from theta.porcelain.drive import overwrites

    words = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\0")
    if overwrites.in_the_way(session, [word for word in words if word][1:]):
        console.out("in the way")
    return []


def _rows(width: int) -> list[list[str]]:
    rows = [line.split() for line in sys.stdin.read().splitlines()]
    return [row for row in rows if len(row) >= width]
