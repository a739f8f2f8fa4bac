"""``theta du``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from theta.cli import console, reports
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.lazy import Module
from theta.porcelain.care import costs
from theta.units import human

if TYPE_CHECKING:
    from rich import table as tables

    from theta.cli import screen
    from theta.porcelain.care.costs import Cost
else:
    screen = Module("theta.cli.screen")
    tables = Module("rich.table")

app = typer.Typer(add_completion=False)

_ID = 12


@app.command(context_settings=HELP)
def du(
    by: str = typer.Option(
        "checkpoint", "--by", metavar="KIND", help="checkpoint (default), tensors, commit or branch."
    ),
    count: int = typer.Option(0, "-n", "--number", min=0, metavar="N", help="Only the N largest."),
    as_json: bool = typer.Option(False, "--json", help="Print bytes as JSON."),
) -> int:
    """Tell what things cost in stored bytes, in all commits, and what would become free without them.

    By checkpoint, by groups of tensors (numbers in their names as '*'), by commit (what it brought), or by
    branch, tag and run. Free is what nothing else shares: 'theta branch -D', 'theta runs prune', then
    'theta gc', once the reflog forgets it too. 'theta du --by commit -n 10' lists the dearest commits.
    """
    session = open_session(worktree=False)
    found = costs.usage(session, by)
    rows = found.rows[:count] if count else found.rows
    if as_json:
        body = {"by": by, "total": found.total, "unreachable": found.unreachable}
        reports.as_json("du", body | {"rows": [asdict(row) for row in rows]})
        return 0
    _show(by, rows)
    console.out(f"{human(found.total)} in all objects; nothing reaches {human(found.unreachable)} of it")
    return 0


def _show(by: str, rows: tuple[Cost, ...]) -> None:
    table = tables.Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stored", "free without it"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column(by, overflow="fold")
    for row in rows:
        name = f"{row.name[:_ID]} {row.note}" if by == "commit" else _short(row.name)
        table.add_row(human(row.stored), human(row.freed), screen.markup(name))
    screen.show(table)


def _short(name: str) -> str:
    for prefix in ("refs/heads/", "refs/remotes/"):
        name = name.removeprefix(prefix)
    return name.replace("refs/theta/runs/", "run ").replace("refs/tags/", "tag ")
