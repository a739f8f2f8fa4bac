"""``theta follow``."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from theta.cli import console, terminal
from theta.cli.apply import Force, InPlace, tell
from theta.cli.args import HELP
from theta.errors import ExitCode, ThetaError
from theta.git.run import shell
from theta.porcelain.replicas import following
from theta.porcelain.replicas.following import Followed, FollowRequest

app = typer.Typer(add_completion=False)
_OTHER: Final = re.compile(r"[^A-Z0-9]+")
_MOST_VARIABLES: Final = 100_000
"""Bytes of the variables of metrics.  Linux takes 128 KiB in one variable."""


@app.command(context_settings=HELP)
def follow(
    remote: Annotated[str, typer.Argument(metavar="REMOTE", help="A URL, or the path of a repository.")],
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run or a branch; it may not be there yet.")],
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Only these globs, files and folders.")
    ] = None,
    into: str = typer.Option(..., "--into", metavar="FOLDER", help="The folder to keep at the newest step."),
    command: str = typer.Option("", "--exec", metavar="CMD", help="Run this by the shell after each step."),
    interval: float = typer.Option(5.0, "--interval", metavar="SECONDS", help="Time between looks (5)."),
    once: bool = typer.Option(False, "--once", help="Look once; exit code 1 when there is no step yet."),
    in_place: InPlace = False,
    force: Force = False,
    repository: str = typer.Option("", "--repository", metavar="DIR", help="The repository to fetch into."),
) -> int:
    """Keep a folder at the newest step of a run of REMOTE, fetching and decoding only what differs.

    CMD finds THETA_RUN, THETA_STEP, THETA_REV (the commit), THETA_FOLDER, THETA_METRICS (JSON) and
    THETA_METRIC_NAME in its environment; it is run once for the step that is found first, too. Failures of
    the network are tried again, after longer and longer times. SIGTERM and Ctrl-C end it between two steps.
    'theta help sync' tells more.
    """
    request = FollowRequest(
        os.path.abspath(remote) if os.path.isdir(remote) else remote,
        run,
        Path(into).absolute(),
        Path(repository).absolute() if repository else None,
        max(interval, 0.05),
        tuple(paths or ()),
        in_place,
        force,
    )
    with _stopping() as stop, terminal.progress("applying") as progress:
        if once:
            found = following.Follower(request).look(progress)
            if found is not None:
                return _done(request, found, command, stop)
            console.err(f"there is no {request.run} at {request.remote} yet")
            return int(ExitCode.DIFFERENCES)
        for found in following.follow(request, _waiting(request, stop), _failed, progress):
            _done(request, found, command, stop)
    return 0


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and Ctrl-C set; the second one ends the process as ever."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def came(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, came)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _waiting(request: FollowRequest, stop: threading.Event) -> Callable[[float], bool]:
    """Return what waits between two looks; it tells once that there is no step yet."""
    is_told = False

    def wait(seconds: float) -> bool:
        nonlocal is_told
        if seconds and not is_told:
            is_told = True
            console.err(f"waiting for steps of {request.run}")
        return stop.wait(seconds)

    return wait


def _failed(error: ThetaError, delay: float) -> None:
    console.warn(f"{error}; trying again in {delay:.0f} s")


def _done(request: FollowRequest, found: Followed, command: str, stop: threading.Event) -> int:
    """Tell of a step, and run the user's command."""
    number = "" if found.step.step is None else f" step {found.step.step}"
    console.note(f"{request.run}{number} ({found.step.commit[:10]})")
    tell(found.result)
    console.flush()
    code = shell(command, _variables(request, found), stop.is_set) if command else 0
    if code:
        console.warn(f"the command ended with exit code {code}")
    return int(ExitCode.FAILED) if code else 0


def _variables(request: FollowRequest, found: Followed) -> Mapping[str, str]:
    step = found.step
    return {
        **_metrics(step.metrics),
        "THETA_RUN": request.run,
        "THETA_STEP": "" if step.step is None else str(step.step),
        "THETA_REV": step.commit,
        "THETA_FOLDER": str(request.folder),
    }


def _metrics(metrics: Mapping[str, float]) -> Mapping[str, str]:
    """Return the variables of metrics; none if they are more than the system gives to a program."""
    each = {f"THETA_METRIC_{_OTHER.sub('_', name.upper())}": repr(value) for name, value in metrics.items()}
    plain = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    found = {**each, "THETA_METRICS": json.dumps(plain, allow_nan=False)}
    if sum(len(name) + len(value) for name, value in found.items()) <= _MOST_VARIABLES:
        return found
    console.warn(f"{len(metrics)} metrics are too many for the environment of the command, which gets none")
    return {}
