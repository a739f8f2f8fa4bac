"""The checkpoints in conflict, as ``theta diff`` tells of them: no side of them is in the index."""

from __future__ import annotations

from functools import partial
from typing import Any

from theta.cli import conflicts, console
from theta.cli.common import stopped
from theta.merging import measures
from theta.merging.states import Conflict
from theta.porcelain.look.comparison import DiffRequest
from theta.porcelain.merge import answers, resolving
from theta.porcelain.workspace.session import Session
from theta.store.odb.objects import Objects


def tell(session: Session, request: DiffRequest) -> list[str]:
    """Print the checkpoints in conflict that ``request`` names, and what settles them; return their paths."""
    found = _asked(session, request)
    for path, rows in found.items():
        left = answers.unanswered(session, rows)
        if kept := [row for row in left if request.wants(row)]:
            conflicts.show(path, kept, partial(_numbers, session.objects) if request.numbers else None)
        elif not left:
            console.out(f"{console.here(path)}: no tensor in conflict")
    if found:
        stopped(session, 1)
    return sorted(found)


def as_json(session: Session, request: DiffRequest) -> list[dict[str, Any]]:
    """Return the checkpoints in conflict that ``request`` names, with the tensors that have no answer."""
    found = []
    for path, rows in _asked(session, request).items():
        names = [row.name for row in answers.unanswered(session, rows) if request.wants(row)]
        found.append({"path": path, "files": [path], "tensors": [], "conflicts": names})
    return found


def _asked(session: Session, request: DiffRequest) -> dict[str, list[Conflict]]:
    """Return the tensors in conflict of each checkpoint that ``request`` names."""
    paths = {*resolving.unmerged(session, [*request.paths])}
    return {path: rows for path, rows in resolving.conflicts(session).items() if path in paths}


def _numbers(objects: Objects, conflict: Conflict) -> list[str]:
    """Return the norms of both changes over that of the base, and their cosine; "" for one that is none."""
    found = measures.compare(objects, conflict)
    if found is None:
        return []
    values = ((found.ours_relative, ".3%"), (found.theirs_relative, ".3%"), (found.cosine, "+.3f"))
    return ["" if value is None else format(value, form) for value, form in values]
