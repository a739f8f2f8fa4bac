"""``theta add``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from theta.cli import console
from theta.cli.args import PASS, of_git
from theta.cli.common import (
    excluding,
    from_root,
    open_session,
    report_added,
    report_left_out,
    report_uncovered,
)
from theta.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.git.run import Git
    from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)

_OURS: Final = ("--all", "--update", "--force", "--verbose", "--sparse")
"""Options that leave the work to theta; with any other git does it, through the filter."""


@app.command(context_settings=PASS)
def add(
    context: typer.Context,
    update_type: str = typer.Option(
        "", metavar="KIND", help="Kind of the update: low-rank, sparse, ia3, scaled or dense."
    ),
    update_data: str = typer.Option(
        "", metavar="FILE", help="File of the update to apply, or directory of a PEFT adapter."
    ),
) -> int:
    """Stage checkpoints and files (git add's options and pathspecs apply).

    A checkpoint is taken apart into tensors; only what is new is stored. Files of a tracked
    pattern that no reader understands are stored as plain bytes, byte-exact too.
    With --update-data, the checkpoint's file becomes the updated model, and what is stored are the
    factors of the update.
    """
    from theta.cli.common import drive
    from theta.porcelain.stage import adding

    session = open_session()
    asked = of_git(context)
    if update_type or update_data:
        return _update(session, asked, update_type, update_data)
    if not asked.known or not asked.only(*_OURS):
        return drive(session, "add", *asked.given)
    update, force = asked.has("--update"), asked.has("--force")
    git = session.repo.git().in_directory(Path.cwd())
    pathspecs = asked.words or ([":(top)"] if update or asked.has("--all") else [])
    if not pathspecs:
        console.err("Nothing specified, nothing added.")
        return 0
    adding.check_pathspecs(session, git, asked.words)
    with session.exclusive():
        selection = adding.select(session, git, pathspecs, update=update, force=force)
        with console.progress("adding") as progress:
            added = adding.add(session, selection, progress)
        code = 0
        rest = [*pathspecs, *excluding(selection.present)]
        new = [] if update else _new_files(git, rest, force)
        if new or _has_more(git, rest) or not (selection.present or selection.gone):
            code = git.show("add", *asked.flags, "--", *rest)
    report_added(added)
    report_uncovered(session, new)
    if update:
        report_left_out(session, "staged by -u")
    return code


def _update(session: Session, asked: Arguments, kind: str, data: str) -> int:
    """Apply an update that the user brings to the one checkpoint named."""
    from theta.porcelain.stage import updates, updating

    kinds = ", ".join(updates.KINDS)
    if kind and kind not in updates.KINDS:
        raise UsageError(f"there is no update type {kind!r}", hint=f"one of {kinds}")
    if not data:
        raise UsageError(
            "--update-type needs --update-data",
            hint="without both, theta add finds by itself what kind of change a file holds",
        )
    if len(asked.words) != 1 or asked.options:
        raise UsageError("an update is for one checkpoint, and takes no other options")
    place = Path(data)
    if not place.exists():
        raise NotFoundError(f"there is no {data}")
    with session.exclusive(), console.progress("updating") as progress:
        added = updating.update(session, from_root(session, asked.words[0]), kind or None, place, progress)
    report_added([added])
    return 0


def _new_files(git: Git, pathspecs: list[str], force: bool) -> list[str]:
    """The untracked files among ``pathspecs``."""
    standard = [] if force else ["--exclude-standard"]
    return git.lines("ls-files", "-z", "--full-name", "-o", *standard, "--", *pathspecs)


def _has_more(git: Git, pathspecs: list[str]) -> bool:
    """Whether known files among ``pathspecs`` changed, are gone or are in conflict."""
    return bool(git.lines("ls-files", "-z", "-m", "-d", "-u", "--", *pathspecs))
