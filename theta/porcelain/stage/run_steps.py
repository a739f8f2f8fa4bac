"""Training runs: a commit a step under ``refs/theta/runs/``, of which some are kept.

Each commit holds whole checkpoints, so that one can be left out of a run without touching the others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from theta.errors import NotFoundError, UsageError
from theta.git.object_format import COMMIT
from theta.git.quoting import split_lines
from theta.git.repository import Repository
from theta.porcelain.stage.saving import METRIC, STEP
from theta.porcelain.workspace.session import Session

PREFIX: Final = "refs/theta/runs/"
_HEADS: Final = "refs/heads/"
_ALIKE: Final = (f"{_HEADS}runs/", f"{_HEADS}theta/runs/")
"""The branches that ``save(ref="runs/NAME")`` makes; a run has the full name of its ref."""
_SCALAR: Final = re.compile(r"np\.float\d+\((.*)\)")
"""A scalar of numpy as it shows itself."""
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class RunStep:
    """A commit of a run.

    Attributes:
        commit: its id.
        step: the number of the training step; None when the commit names none.
        metrics: name -> value.
        time: seconds since 1970 at which it was saved.
        subject: the first line of its message.
        body: what follows it, without the trailers.
    """

    commit: str
    step: int | None
    metrics: Mapping[str, float]
    time: int
    subject: str
    body: str = ""


def ref_of(name: str) -> str:
    """Return the ref of the run ``name``; raises :class:`UsageError` for what cannot be a name."""
    if type(name) is not str or not name or name.startswith(("/", "-")) or name.endswith("/"):
        raise UsageError(f"a run cannot be named {name!r}")
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"a run cannot be named {name!r}") from error
    return PREFIX + name


def are_in(repo: Repository) -> bool:
    """Return whether ``repo`` has steps of runs."""
    return any(name.startswith(PREFIX) for name in repo.refs)


def names(session: Session) -> list[str]:
    """Return the names of all runs, sorted."""
    return sorted(name.removeprefix(PREFIX) for name in session.repo.refs if name.startswith(PREFIX))


def steps(session: Session, name: str) -> list[RunStep]:
    """Return the steps of a run, the first one first; raises :class:`NotFoundError` for no such run."""
    ref = ref_of(name)
    tip = session.repo.refs.resolved(ref) if ref in session.repo.refs else None
    if tip is None:
        raise NotFoundError(f"there is no run {name}", hint=_hint(session, name))
    return [step_of(session, oid) for oid in reversed(line(session, tip))]


def beginning(session: Session) -> str:
    """Return one line for a repository without runs: how one is begun, or got from a remote.

    A branch that was saved as one, below ``runs/``, is named.
    """
    for branch in sorted(session.repo.refs):
        for prefix in _ALIKE:
            if branch.startswith(prefix):
                return _is_branch(branch, branch.removeprefix(prefix))
    for remote in session.repo.refs.remotes():
        return f"no runs here; 'theta fetch {remote} \"+{PREFIX}*:{PREFIX}*\"' gets those of {remote}"
    return """no runs yet; theta.Run(repo, "r1") begins one, see 'theta help training'"""


def _hint(session: Session, name: str) -> str:
    refs = session.repo.refs
    branch = next((prefix + name for prefix in (*_ALIKE, _HEADS) if prefix + name in refs), "")
    if branch:
        return _is_branch(branch, name)
    return "'theta runs' lists them" if names(session) else beginning(session)


def _is_branch(branch: str, name: str) -> str:
    return f"{branch.removeprefix(_HEADS)} is a branch; theta.Run(repo, {json.dumps(name)}) begins a run"


def named(session: Session, revision: str) -> str:
    """Return the commit that ``revision`` names: as git reads it, or ``RUN``, or ``RUN@STEP``.

    Raises :class:`NotFoundError` when there is none.
    """
    found = session.repo.commit_of(revision) if revision else None
    if found is not None:
        return found
    run, _, number = revision.rpartition("@")
    if run and _NUMBER.fullmatch(number) and PREFIX + run in session.repo.refs:
        numbered = [step.commit for step in steps(session, run) if step.step == int(number)]
        if not numbered:
            raise NotFoundError(f"run {run} has no step {number}", hint=f"'theta runs {run}' lists them")
        return numbered[-1]
    tip = session.repo.commit_of(PREFIX + revision) if PREFIX + revision in session.repo.refs else None
    if tip is None:
        raise NotFoundError(f"no such revision or run: {revision}")
    return tip


def revision(session: Session, name: str) -> str:
    """Return the commit of the run or the step that ``name`` names, or ``name`` if git reads it."""
    is_run = any(PREFIX + run in session.repo.refs for run in (name, name.rpartition("@")[0]))
    return named(session, name) if is_run else name


def line(session: Session, tip: str) -> list[str]:
    """Return ``tip`` and its first parents, newest first; a shallow history ends where git's does."""
    found, ends = [tip], session.repo.shallow_ends()
    while (parents := session.repo.commit(found[-1]).parents) and found[-1] not in ends:
        found.append(parents[0])
    return found


def step_of(session: Session, oid: str) -> RunStep:
    """Return commit ``oid`` as a step; one that no run made has neither number nor metrics."""
    commit = session.repo.commit(oid)
    number: int | None = None
    metrics: dict[str, float] = {}
    said, _, trailers = commit.message.rstrip().rpartition("\n\n")
    for line in split_lines(trailers):
        key, _, value = line.partition(": ")
        if key == STEP and _NUMBER.fullmatch(value):
            number = int(value)
        elif key == METRIC:
            metric, _, text = value.rpartition("=")
            metrics[metric] = _number(text)
    subject = commit.message.partition("\n")[0]
    return RunStep(oid, number, metrics, commit.author.time, subject, said.partition("\n\n")[2])


def _number(text: str) -> float:
    scalar = _SCALAR.fullmatch(text)
    try:
        return float(scalar[1] if scalar else text)
    except ValueError:
        return math.nan


def best_of(found: Collection[RunStep], metric: str, *, highest: bool = False) -> RunStep:
    """Return the step with the lowest value of ``metric``, or the highest; the first of equal ones.

    Raises :class:`NotFoundError` when no step has a value that can be compared.
    """
    return (max if highest else min)(_telling(found, metric), key=lambda step: step.metrics[metric])


def ranked(found: Collection[RunStep], metric: str, *, highest: bool = False) -> list[RunStep]:
    """Return the steps that tell ``metric``, lowest value first or highest; raises as :func:`best_of`."""
    return sorted(_telling(found, metric), key=lambda step: step.metrics[metric], reverse=highest)


def chosen(
    found: Collection[RunStep],
    name: str,
    *,
    best: str | None = None,
    highest: bool = False,
    number: int | None = None,
) -> RunStep:
    """Return one step of run ``name``: the best by a metric, that of a number, or the newest.

    Raises :class:`NotFoundError` when there is no such step, :class:`UsageError` for both at once.
    """
    if best is not None and number is not None:
        raise UsageError("the best step and a step by number do not go together")
    if best is not None:
        return best_of(found, best, highest=highest)
    if highest:
        raise UsageError("the highest value is that of a metric", hint="name the metric that decides")
    named = [item for item in found if number is None or item.step == number]
    if not named:
        raise NotFoundError(f"run {name} has no step {'yet' if number is None else number}")
    return named[-1]


def _telling(found: Collection[RunStep], metric: str) -> list[RunStep]:
    told = [step for step in found if not math.isnan(step.metrics.get(metric, math.nan))]
    if not told:
        raise NotFoundError(f"no step of the run tells {metric}")
    return told


def retain(session: Session, name: str, kept: Collection[str]) -> dict[str, str]:
    """Leave in run ``name`` only the commits ``kept``; return old id -> new id of those that are left.

    Each becomes a child of the kept one before it, with the same tree, message and dates.  Nothing is
    encoded; a signature, which would not fit any more, goes.  The newest step always stays.
    """
    ref = ref_of(name)
    tip = session.repo.refs.resolved(ref) or ""
    renamed: dict[str, str] = {}
    parent: str | None = None
    with session.change() as change:
        for oid in reversed(line(session, tip)):
            if oid in kept or oid == tip:
                renamed[oid] = parent = _on(session, oid, parent)
        if parent is not None and parent != tip:
            change.move(ref, parent, tip, f"retain: {len(renamed)} steps")
    return renamed


def _on(session: Session, oid: str, parent: str | None) -> str:
    """Return commit ``oid`` with ``parent`` as its only one."""
    commit = session.repo.commit(oid)
    if commit.parents == ((parent,) if parent else ()):
        return oid
    head, _, message = commit.data.partition(b"\n\n")
    rows = _unsigned(head.split(b"\n"))
    rows = [row for row in rows if not row.startswith(b"parent ")]
    rows[1:1] = [f"parent {parent}".encode()] if parent else []
    return session.repo.backend.objects.write(COMMIT, b"\n".join(rows) + b"\n\n" + message)


def _unsigned(rows: list[bytes]) -> list[bytes]:
    """Return the rows of a commit without its signature, which goes on over rows that a space begins."""
    found: list[bytes] = []
    signed = False
    for row in rows:
        signed = row.startswith(b"gpgsig") or (signed and row.startswith(b" "))
        if not signed:
            found.append(row)
    return found
