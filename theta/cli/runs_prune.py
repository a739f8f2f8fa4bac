"""``theta runs prune``."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer

from theta.cli import console, reports, runs
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import UsageError
from theta.porcelain.stage import run_steps
from theta.porcelain.stage.run_steps import RunStep
from theta.store.changes import counted

app = typer.Typer(add_completion=False)
_METRIC: Final = "METRIC[:N]"
_LOWEST: Final = "Keep the N steps with its lowest values; by default one."
_HIGHEST: Final = "Keep the N steps with its highest values."


@app.command(context_settings=HELP)
def prune(
    name: str = typer.Argument(..., help="The run."),
    last: int = typer.Option(0, "--last", min=0, metavar="N", help="Keep the newest N steps."),
    best: Annotated[list[str] | None, typer.Option("--best", metavar=_METRIC, help=_LOWEST)] = None,
    highest: Annotated[list[str] | None, typer.Option("--highest", metavar=_METRIC, help=_HIGHEST)] = None,
    every: int = typer.Option(0, "--every", min=0, metavar="N", help="Keep the steps that N divides."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Show the steps that would go, and change nothing."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the steps that went as JSON."),
) -> int:
    """Let go of all steps of a run but those that an option keeps; the newest always stays.

    What is kept keeps its files, message, metrics and dates, and nothing is encoded again. 'theta gc' frees
    the space.
    """
    if not (last or best or highest or every):
        raise UsageError("say which steps stay", hint="theta runs prune NAME --last 3 --best METRIC:2")
    session = open_session(worktree=False)
    steps = run_steps.steps(session, name)
    kept = {step.commit for step in steps[-max(last, 1) :]}
    kept |= {step.commit for step in steps if every and step.step is not None and not step.step % every}
    kept |= _best(steps, best or [], highest=False) | _best(steps, highest or [], highest=True)
    gone = [step for step in steps if step.commit not in kept]
    if dry_run and not as_json:
        runs.show(gone)
        return 0
    if gone and not dry_run:
        run_steps.retain(session, name, kept)
    if as_json:
        reports.as_json(
            "runs-prune", {"run": name, "gone": [runs.plain(one) for one in gone], "kept": len(kept)}
        )
    elif not console.quiet:
        console.out(f"{name}: {counted(len(gone), 'step')} went, {len(steps) - len(gone)} stay")
    return 0


def _best(steps: list[RunStep], asked: list[str], *, highest: bool) -> set[str]:
    """Return the best steps by each ``METRIC[:N]``; a metric may have colons in its name."""
    found: set[str] = set()
    for text in asked:
        metric, colon, count = text.rpartition(":")
        metric, most = (metric, int(count)) if colon and re.fullmatch("[0-9]+", count) else (text, 1)
        if most < 1:
            raise UsageError(f"{text} keeps no step", hint=f"{metric}:1 keeps the best one")
        found |= {step.commit for step in run_steps.ranked(steps, metric, highest=highest)[:most]}
    return found
