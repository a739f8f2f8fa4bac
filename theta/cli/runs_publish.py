"""``theta runs publish``."""

from __future__ import annotations

import typer

from theta.cli import console, reports
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.porcelain.stage import run_steps, saving

app = typer.Typer(add_completion=False)
_ID = 10
"""Digits of a commit's id."""


@app.command(context_settings=HELP)
def publish(
    name: str = typer.Argument(..., help="The run."),
    branch: str = typer.Argument(..., help="A branch that is not checked out; it is made if missing."),
    best: str = typer.Option("", "--best", metavar="METRIC", help="The step with its lowest value."),
    highest: bool = typer.Option(False, "--highest", help="With --best: its highest value."),
    step: int | None = typer.Option(None, "--step", metavar="N", help="The step of this number."),
    as_json: bool = typer.Option(False, "--json", help="Print the commit as JSON."),
) -> int:
    """Put one step of a run on a branch, as one commit; by default the newest.

    Its files take the place of those of these paths, and all other files of the branch stay.
    """
    session = open_session(worktree=False)
    found = run_steps.steps(session, name)
    chosen = run_steps.chosen(found, name, best=best or None, highest=highest, number=step)
    made = saving.publish(session, chosen.commit, branch, f"{name}: {chosen.subject}")
    if as_json:
        body = {
            "run": name,
            "step": chosen.step,
            "from": chosen.commit,
            "ref": made.ref,
            "commit": made.commit,
        }
        reports.as_json("runs-publish", body)
    elif not console.quiet:
        console.out(f"{made.ref.removeprefix('refs/heads/')}: {made.commit[:_ID]} {name}: {chosen.subject}")
    return 0
