"""``theta runs best``."""

from __future__ import annotations

import typer

from theta.cli import runs
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.porcelain.stage import run_steps

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def best(
    name: str = typer.Argument(..., help="The run."),
    metric: str = typer.Argument(..., help="The metric that decides."),
    count: int = typer.Option(1, "-n", "--number", min=1, metavar="N", help="As many steps; by default one."),
    highest: bool = typer.Option(False, "--highest", help="The highest value is the best, not the lowest."),
    as_json: bool = typer.Option(False, "--json", help="Print the steps as JSON."),
) -> int:
    """Find the steps of a run with the best value of a metric, the best one first.

    Of equal values the earlier is the better; a step without the metric, or of value nan, is none.
    """
    steps = run_steps.steps(open_session(worktree=False), name)
    found = run_steps.ranked(steps, metric, highest=highest)[:count]
    if as_json:
        runs.show_json({name: found})
    else:
        runs.show(found)
    return 0
