"""The study of a history: its graph, what each commit stored, and the metrics of training steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from theta.porcelain.care import costs
from theta.porcelain.lineage import tracing
from theta.porcelain.look.version_changes import Summary
from theta.porcelain.stage import run_steps
from theta.porcelain.studies.pages_data import PageData
from theta.porcelain.workspace.session import Session
from theta.units import human


def study(session: Session, found: Iterable[Summary]) -> PageData:
    """Return the data of a page on these commits, which come newest first."""
    stored = {cost.name: cost.stored for cost in costs.usage(session, "commit").rows}
    names = tracing.names_of_commits(session)
    rows = [_row(session, one, stored.get(one.commit), names.get(one.commit, ())) for one in found]
    total = sum(row["stored"] or 0 for row in rows)
    here = " in this clone" if session.repo.promised.is_partial else ""
    facts = (("commits", str(len(rows))), (f"stored for them{here}", human(total)))
    return PageData("log", f"History of {session.repo.top.name}", facts, (), tuple(reversed(rows)))


def _row(session: Session, one: Summary, stored: int | None, names: tuple[str, ...]) -> dict[str, Any]:
    step = run_steps.step_of(session, one.commit)
    changes = "; ".join(changes.told(path) for path, changes in one.checkpoints.items())
    return {
        "commit": one.commit,
        "parents": list(session.repo.commit(one.commit).parents),
        "names": list(names),
        "subject": one.subject,
        "author": one.author.rpartition(" <")[0] or one.author,
        "date": one.date[:16],
        "changes": changes,
        "stored": stored,
        "step": step.step,
        "metrics": dict(step.metrics),
    }
