"""``theta runs``."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Final

import typer
from rich.table import Table

from theta.cli import console, reports, screen
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.cli.screen import markup
from theta.errors import UsageError
from theta.porcelain.stage import run_steps
from theta.porcelain.stage.run_steps import RunStep
from theta.store.changes import counted

app = typer.Typer(add_completion=False)
_ID: Final = 10
"""Digits of a commit's id."""


@app.command(context_settings=HELP)
def runs(
    name: str = typer.Argument("", metavar="[NAME]", help="Show the steps of this run."),
    best: str = typer.Option("", "--best", metavar="METRIC", help="Only the step with its lowest value."),
    highest: bool = typer.Option(False, "--highest", help="With --best: its highest value."),
    sort: str = typer.Option("", "--sort", metavar="METRIC", help="The steps by this metric, lowest first."),
    as_json: bool = typer.Option(False, "--json", help="Print the steps as JSON."),
) -> int:
    """List training runs, or the steps of one with their metrics.

    'theta runs best' finds the best steps of a run, 'theta runs prune' lets go of steps, and 'theta runs
    publish' puts one on a branch; 'theta runs show NAME' is for a run whose name is one of these words.
    """
    session = open_session(worktree=False)
    if not name and (best or highest or sort):
        raise UsageError("steps are those of one run", hint="theta runs NAME --best METRIC")
    if highest and not best:
        raise UsageError(
            "--highest says which step is the best", hint="theta runs NAME --best METRIC --highest"
        )
    names = [name] if name else run_steps.names(session)
    found = {one: run_steps.steps(session, one) for one in names}
    if best:
        found = {one: [run_steps.best_of(steps, best, highest=highest)] for one, steps in found.items()}
    if sort:
        found = {one: run_steps.ranked(steps, sort) for one, steps in found.items()}
    if as_json:
        show_json(found)
    elif name:
        show(found[name])
    else:
        for one, steps in found.items():
            last = "" if steps[-1].step is None else f" {steps[-1].step}"
            console.out(f"{one}  {counted(len(steps), 'step')}, the last{last} of {_time(steps[-1])}")
        if not found and not console.quiet:
            console.err(f"hint: {run_steps.beginning(session)}")
    return 0


def show(steps: list[RunStep]) -> None:
    """Print a table of the steps."""
    metrics = list(dict.fromkeys(metric for step in steps for metric in step.metrics))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("step", "commit", "saved", *map(markup, metrics)):
        table.add_column(column, no_wrap=True)
    for step in steps:
        values = (f"{step.metrics[metric]:.6g}" if metric in step.metrics else "" for metric in metrics)
        table.add_row(_number(step), step.commit[:_ID], _time(step), *values)
    screen.show(table)


def show_json(found: Mapping[str, Iterable[RunStep]]) -> None:
    """Print the steps of runs as JSON."""
    body = {name: [plain(step) for step in steps] for name, steps in found.items()}
    reports.as_json("runs", body)


def _number(step: RunStep) -> str:
    return "-" if step.step is None else str(step.step)


def _time(step: RunStep) -> str:
    return datetime.datetime.fromtimestamp(step.time).strftime("%Y-%m-%d %H:%M:%S")


def plain(step: RunStep) -> dict[str, Any]:
    """Return the step as plain data."""
    return {"commit": step.commit, "step": step.step, "metrics": dict(step.metrics), "time": step.time}
