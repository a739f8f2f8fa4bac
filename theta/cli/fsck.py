"""``theta fsck``."""

from __future__ import annotations

import typer

from theta.cli import console
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import ExitCode
from theta.porcelain.look import checking
from theta.porcelain.workspace import agreement

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def fsck(
    read_data: bool = typer.Option(False, "--read-data", help="Decode every chunk and check its digest."),
    mend: bool = typer.Option(False, "--mend", help="Rebuild .theta/ from the manifests."),
) -> int:
    """Check the repository: git's objects, then every checkpoint of every commit."""
    session = open_session(worktree=False)
    if mend:
        with session.change():
            for line in agreement.settle(session, on_purpose=True):
                console.note(line)
        session = open_session(worktree=False)
    bad = session.repo.git().show("fsck", "--full", "--strict", "--no-dangling", "--no-progress")
    owed = checking.Owed()
    for line in checking.problems(session, owed, read_data=read_data):
        console.out(line)
        bad = bad or 1
    if owed:
        console.note(str(owed))
    if bad:
        console.err("error: the repository has problems")
        return int(ExitCode.CORRUPT)
    console.note("no problems found")
    return 0
