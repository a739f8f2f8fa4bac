"""``theta doctor``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.errors import ExitCode
from theta.porcelain.care import checkup
from theta.porcelain.care.checkup import Complaint
from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def doctor(
    fix: bool = typer.Option(False, "--fix", help="Mend what can be mended."),
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> int:
    """Check settings, hooks, caches, locks, the index, files and space, and tell what would mend them.

    One line a finding. Exit code 0: nothing is wrong (any more); 1: something is. 'theta doctor --fix' sets
    up what is missing, undoes what a killed command left, removes stale locks, rebuilds .theta/ in the
    index, fills in files, and stages checkpoints that another tool stored as plain bytes. It commits
    nothing, and rewrites only a HEAD that nobody else has. 'theta fsck' checks all commits.
    """
    session = Session.here(".")
    found = checkup.examine(session)
    left = found
    if fix and found:
        with terminal.progress("mending") as progress:
            left = checkup.mend(session, progress)
    mended = [finding for finding in found if finding not in left] if fix else []
    if as_json:
        rows = [{**asdict(one), "mended": is_mended} for one, is_mended in _all(mended, left)]
        reports.as_json("doctor", {"findings": rows})
    else:
        for one, is_mended in _all(mended, left):
            console.out(_line(one, is_mended=is_mended))
        if not left:
            console.note("nothing is wrong" if not mended else "nothing is wrong any more")
        elif not fix and any(one.can_be_mended for one in left):
            console.err("hint: 'theta doctor --fix' mends what has no command in its line")
    return int(ExitCode.DIFFERENCES) if left else 0


def _all(mended: list[Complaint], left: list[Complaint]) -> list[tuple[Complaint, bool]]:
    return [*((one, True) for one in mended), *((one, False) for one in left)]


def _line(one: Complaint, *, is_mended: bool) -> str:
    return f"{one.kind}: {one.text}; {'mended' if is_mended else f'to mend: {one.remedy}'}"
