"""``theta blame``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from theta.cli import console, reports
from theta.cli.args import Given, parted
from theta.cli.common import open_session
from theta.cli.passing import Passing
from theta.errors import UsageError
from theta.git.quoting import visible
from theta.lazy import Module

if TYPE_CHECKING:
    import typer
    from rich import table as tables

    from theta.cli import name_folding, screen
    from theta.git.object_values import Author
    from theta.porcelain.care import blaming
    from theta.porcelain.care.blaming import BlameRequest, LastChange
    from theta.porcelain.workspace.session import Session
else:
    name_folding = Module("theta.cli.name_folding")
    screen = Module("theta.cli.screen")
    blaming = Module("theta.porcelain.care.blaming")
    tables = Module("rich.table")
    typer = Module("typer")

app = Passing(("--json",))

_ID: Final = 10
_FULL: Final = "%Y-%m-%d %H:%M:%S %z"
_FULL_WIDTH: Final = len("2026-11-27 03:17:41 +0000")
_DAY: Final = "%Y-%m-%d"
_DAY_WIDTH: Final = len("2026-11-27")
_LEAST: Final = 8
"""Columns of an author's name that stay, however narrow the terminal is."""


@app.command
def blame(
    given: Given,
    as_json: Annotated[bool, typer.Option("--json", help="Print tensors and commits as JSON.")] = False,
) -> int:
    """Show for each tensor of a checkpoint the commit that last changed it, with its author and date.

    TENSOR may be a glob: 'theta blame "model.safetensors#model.layers.0.*"'. Merges are followed, and
    renamed files. Other files, and lines with options of git blame, are git's.
    """
    session = open_session(worktree=False)
    request = _request(session, given.args)
    if request is None:
        if as_json:
            raise UsageError(
                "--json is for the tensors of a checkpoint", hint="theta blame --json [REV] PATH"
            )
        return session.repo.git(extra={}).in_directory(Path.cwd()).show("blame", *given.args)
    found = blaming.blame(session, request)
    if as_json:
        rows = [_plain(origin) for origin in found]
        body = {"path": request.path, "revision": request.revision, "tensors": rows}
        reports.as_json("blame", body)
        return 0
    renamed = {origin.path for origin in found} != {request.path}
    names = [f"{origin.path}#{origin.name}" if renamed else origin.name for origin in found]
    if console.on_screen():
        _show(found, names)
        return 0
    width = max(len(origin.author.name) for origin in found)
    for origin, name in zip(found, names, strict=True):
        console.out(f"{origin.commit[:_ID]} ({origin.author.name:<{width}} {_date(origin.author)}) {name}")
    return 0


def _show(found: Sequence[LastChange], names: Sequence[str]) -> None:
    """Print the lines for a terminal, where they are not wide: time, then author, then name give way.

    A date and an id are never folded; a name is, within its column, so that nothing of it is lost.
    """
    longest = max(len(visible(name)) for name in names)
    author = max(len(visible(origin.author.name)) for origin in found)
    room = screen.width() - longest - _ID - len("  () ")
    form = _FULL if author + 1 + _FULL_WIDTH <= room else _DAY
    author = min(author, max(room - 1 - _DAY_WIDTH, _LEAST)) if form == _DAY else author
    table = tables.Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=author + 1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for origin, name in zip(found, names, strict=True):
        who, tensor = f"({screen.markup(origin.author.name)}", name_folding.FoldedName(visible(name))
        table.add_row(origin.commit[:_ID], who, f"{_date(origin.author, form)})", tensor)
    screen.show(table)


def _request(session: Session, args: Sequence[str]) -> BlameRequest | None:
    """Return what to tell of tensors; None of a line that is git's."""
    before, behind = parted(args)
    words = [*before, *behind]
    if any(word.startswith("-") for word in before) or not 1 <= len(words) <= 2:
        return None
    revision, place = (words[0], words[1]) if len(words) == 2 else ("HEAD", words[0])
    path, mark, tensor = place.partition("#")
    inside = session.tree_path(path) if len(words) == 1 else None
    if inside is not None:
        revision, path = inside.revision, inside.path
    elif session.repo.is_bare:
        path = os.path.normpath(path)
    else:
        path = session.from_root(path)
    request = blaming.BlameRequest(path, revision, tensor or "*")
    return request if mark or blaming.is_checkpoint(session, request) else None


def _date(author: Author, form: str = _FULL) -> str:
    zone = timezone(timedelta(minutes=author.zone))
    return datetime.fromtimestamp(author.time, zone).strftime(form)


def _plain(origin: LastChange) -> dict[str, str]:
    """Return the origin as plain data."""
    zone = timezone(timedelta(minutes=origin.author.zone))
    date = datetime.fromtimestamp(origin.author.time, zone).isoformat()
    who = {"author": origin.author.name, "email": origin.author.email, "date": date}
    return {
        "name": origin.name,
        "commit": origin.commit,
        **who,
        "subject": origin.subject,
        "path": origin.path,
    }
