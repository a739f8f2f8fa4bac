"""Answers that were given before the user stopped; the next time they are not asked again."""

from __future__ import annotations

import json
from collections.abc import Mapping

from theta import _fs
from theta.merging.states import Conflict
from theta.porcelain import operations
from theta.porcelain.session import Session

Kept = tuple[str, str]
"""A strategy, and the glob of the names that it holds for too (or nothing)."""


def key(conflict: Conflict) -> str:
    """What an answer is kept under: the tensor and the values that it was given for."""
    sides = (side.digest if side else "-" for side in (conflict.base, *conflict.sides))
    return " ".join([*sides, conflict.name])


def kept(session: Session) -> dict[str, Kept]:
    """The answers to the conflicts of the operation that is under way."""
    try:
        found = json.loads((session.repo.private / "answers").read_bytes())
        if found["operation"] != _operation(session):
            return {}
        return {str(one): (str(text), str(glob)) for one, (text, glob) in found["answers"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def keep(session: Session, answers: Mapping[str, Kept]) -> None:
    """Keep ``answers`` for the next time."""
    _fs.make_dirs(session.repo.private)
    body = {"operation": _operation(session), "answers": dict(answers)}
    _fs.write_atomic(session.repo.private / "answers", json.dumps(body).encode(), durable=False)


def forget(session: Session) -> None:
    """Forget what is kept: the operation is over."""
    _fs.remove(session.repo.private / "answers")


def _operation(session: Session) -> str:
    now = operations.current(session.repo)
    return f"{now.name} {now.ours} {now.theirs}"
