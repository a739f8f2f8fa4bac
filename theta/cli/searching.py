"""The options of ``theta merge --search``, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli.terminal import Terminal
    from theta.porcelain.commands import merging
    from theta.porcelain.commands.merge_request import MergeRequest
    from theta.porcelain.search import scoring, space, trials
    from theta.porcelain.search.trials import SearchRequest, SearchResult
    from theta.porcelain.workspace.session import Session
else:
    merging = Module("theta.porcelain.commands.merging")
    scoring = Module("theta.porcelain.search.scoring")
    space = Module("theta.porcelain.search.space")
    trials = Module("theta.porcelain.search.trials")

Axes = Annotated[
    list[str] | None,
    typer.Option(
        "--search",
        metavar="NAME=LOW:HIGH[:STEP]",
        help="Try values of a parameter of the -X strategy, and merge with those that score best.",
    ),
]
ScoreBy = Annotated[
    str,
    typer.Option(
        "--score", metavar="CMD", help="Score a candidate, the file {}: the last line is the number."
    ),
]
Minimize = Annotated[bool, typer.Option("--minimize", help="The least score is the best.")]
Way = Annotated[
    str, typer.Option("--search-by", metavar="WAY", help="grid, random or cma (CMA-ES); by default as fits.")
]
Trials = Annotated[int, typer.Option("--trials", min=0, metavar="N", help="The number of candidates.")]


def asked(
    axes: Sequence[str] | None, score: str, way: str, trials_: int, *, minimize: bool, seed: str | None
) -> SearchRequest:
    """Return the search that these options ask for; raises :class:`UsageError` if they ask for none."""
    if not axes:
        given = {"--score": score, "--search-by": way, "--trials": trials_, "--minimize": minimize}
        first = next(name for name, value in given.items() if value)
        raise UsageError(f"{first} goes with --search", hint="--search weight=0:1:0.1 --score 'CMD {}'")
    if not score:
        raise UsageError("--search needs --score", hint="--score 'python score.py {}' prints a number")
    if way and way not in space.WAYS:
        raise UsageError(f"there is no search by {way!r}", hint=" or ".join(space.WAYS))
    return trials.SearchRequest(
        tuple(map(space.axis, axes)),
        score,
        minimize,
        way,
        trials_,
        int(seed) if seed and seed.isdigit() else 0,
    )


def best(session: Session, request: MergeRequest, found: SearchRequest, terminal: Terminal) -> MergeRequest:
    """Return ``request`` with the parameters that score best; each candidate is shown as it is scored.

    Where HEAD has all of what is to be merged, none are searched for.
    """
    if merging.is_done(session, request, terminal):
        return request
    score = scoring.by_command(found.objective)
    new, done = merging.search(session, request, found, score, terminal, _row)
    winner = done.best
    known = sum(trial.known for trial in done.trials)
    if known:
        console.err(f"hint: {known} scores are of an earlier search; remove {trials.NOTE} to score anew")
    _tell(f"best of {len(done.trials)}: {winner.strategy} scores {winner.score:.6g}")
    return new


def _tell(line: str) -> None:
    """Print on standard error, unless ``--quiet``: standard output has the result of the merge."""
    if not console.quiet:
        console.err(line)


def _row(found: SearchResult) -> None:
    """Show the trial that was scored last."""
    trial = found.trials[-1]
    values = "  ".join(
        f"{axis.label}={value:<8.6g}" for axis, value in zip(found.request.axes, trial.point, strict=True)
    )
    told = trial.reason if trial.score is None else f"{trial.score:.6g}"
    marks = [
        *(["known"] if trial.known else []),
        *(["*"] if trial.score is not None and found.best is trial else []),
    ]
    _tell(f"{len(found.trials):4}  {values}  {told}  {' '.join(marks)}".rstrip())
