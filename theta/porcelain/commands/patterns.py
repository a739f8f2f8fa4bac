"""The patterns of tracked files: adding and removing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from theta.porcelain.setup import installing
from theta.porcelain.setup.claims import Claim
from theta.porcelain.setup.overriding import Overriding
from theta.porcelain.workspace import tracking
from theta.porcelain.workspace.session import Session
from theta.porcelain.workspace.tracking import Pattern


@dataclass(frozen=True)
class TrackRequest:
    """Patterns of gitattributes, from the directory of the session.

    ``override``: files that other lines claim get a line of theta's after those.
    """

    patterns: Sequence[str]
    override: bool = False


@dataclass(frozen=True)
class TrackResult:
    """The result of tracking patterns.

    Attributes:
        new: patterns that were not tracked before.
        unmatched: patterns that match no file yet.
        ignored: files that match, and that ``.gitignore`` excludes.
        plain: tracked files that are committed as plain bytes.
        claimed: path -> the line of others that holds for a file that matches.
        over: the lines that were written after those of others.
        hints: lines on what was set up in this clone.
    """

    new: Sequence[str]
    unmatched: Sequence[str]
    ignored: Sequence[str]
    plain: Sequence[str]
    claimed: Mapping[str, Claim]
    over: Overriding
    hints: Sequence[str]


@dataclass(frozen=True)
class UntrackResult:
    """The result of removing patterns: ``plain`` are the files that will be committed as plain bytes."""

    plain: Sequence[str]


def listed(session: Session) -> list[Pattern]:
    """Return all tracked patterns, those of the root first."""
    return tracking.listed(session)


def track(session: Session, request: TrackRequest) -> TrackResult:
    """Track patterns and set up this clone; raises as :func:`tracking.track`."""
    with session.change():
        done = tracking.track(session, session.cwd, request.patterns, override=request.override)
        hints = installing.ensure_durable(session.repo)
    raw = tuple(tracking.raw_files(session))
    told = (done.new, done.unmatched, done.ignored, raw, done.claimed, done.over)
    return TrackResult(*told, tuple(hints))


def untrack(session: Session, request: TrackRequest) -> UntrackResult:
    """Take patterns back; raises as :func:`tracking.untrack`."""
    with session.change():
        return UntrackResult(tuple(tracking.untrack(session, session.cwd, request.patterns)))
