"""``theta export-history``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.cli.migrate import require_map, told, write_map
from theta.lazy import Module
from theta.units import human

if TYPE_CHECKING:
    from theta.porcelain.migration import exporting, importing
else:
    exporting = Module("theta.porcelain.migration.exporting")
    importing = Module("theta.porcelain.migration.importing")

app = typer.Typer(add_completion=False)


@app.command("export-history", context_settings=HELP)
def export_history(
    kind: str = typer.Option(..., "--as", metavar="lfs|raw", help="Pointers of Git LFS, or plain files."),
    object_map: str = typer.Option(
        "", "--object-map", metavar="FILE", help="Write a line 'OLD NEW' for each commit."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print files and commits as JSON."),
) -> int:
    """Write all branches and tags anew without theta: the way back of 'theta migrate --all-history'.

    Files are those that were committed, byte for byte. With --as lfs they lie below .git/lfs, where
    'git lfs push --all' finds them. 'theta uninstall' then takes theta out of this clone.
    """
    require_map(object_map)
    session = open_session(worktree=False)
    with terminal.fetches() as show:
        done = exporting.export(session, kind, show or importing.silent)
    if object_map:
        write_map(object_map, done.rewritten)
    if as_json:
        reports.as_json("export-history", asdict(done))
        return 0
    count = sum(done.files.values())
    console.note(
        f"{len(done.files)} file(s) with {count} version(s), {human(done.nbytes)}",
        *told(done.refs, done.rewritten),
    )
    return 0
