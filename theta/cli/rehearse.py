"""``theta merge --dry-run`` and ``--replay``: a merge that changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from theta.cli import console
from theta.cli.foreign import markup
from theta.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from theta.cli.deciding import Decision
    from theta.merging.engine import RehearsedTensor
    from theta.porcelain.merge.in_memory import Joined
    from theta.porcelain.workspace.session import Session

SHOWN: Final = 60
_UNTOUCHED: Final = "same"


def rehearse(
    session: Session, heads: Sequence[str], decision: Decision, base: str | None, *, as_json: bool
) -> int:
    """Tell what a merge with ``heads`` would do to each tensor, and what it would store."""
    from theta.git.commit_graph import octopus_base
    from theta.porcelain.merge import dry_run, octopus

    ours = session.repo.resolve("HEAD")
    found = base or octopus_base(session.repo, [ours, *heads])
    with dry_run.rehearsal(session) as apart:
        joined = octopus.join(apart, [ours, *heads], decision.how, base)
    if as_json:
        console.out(json.dumps({"theta.merge/v1": _as_json(joined, found)}))
    else:
        console.out(f"merge base: {found[:12] if found else 'none'}")
        for path, rows in joined.merged.rows.items():
            _table(path, rows)
        for path in _open(joined):
            console.out(f"CONFLICT: {path}")
    return int(bool(_open(joined)))


def _open(joined: Joined) -> list[str]:
    return sorted({*joined.merged.conflicts, *joined.open_files})


def _table(path: str, rows: Sequence[RehearsedTensor]) -> None:
    from rich.table import Table

    touched = [row for row in rows if row.state != _UNTOUCHED]
    table = Table(title=markup(path), box=None, title_justify="left", pad_edge=False)
    for name in ("tensor", "taken", "by", "size", "new in the repository"):
        number = name in ("size", "new in the repository")
        table.add_column(name, overflow="fold", justify="right" if number else "left", no_wrap=number)
    for row in touched[:SHOWN]:
        sizes = (console.human(row.nbytes), console.human(row.stored) if row.stored else "")
        table.add_row(markup(row.name), row.state, markup(row.strategy), *sizes)
    console.show(table)
    if len(touched) > SHOWN:
        console.out(f"... and {len(touched) - SHOWN} more")
    counts = Counter(row.state for row in rows)
    stored = sum(row.stored for row in rows)
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    console.out(f"{len(rows)} tensors: {told}; {console.human(stored)} to store")


def _as_json(joined: Joined, base: str | None) -> dict[str, object]:
    keys = ("name", "state", "strategy", "nbytes", "stored")
    tables = {
        path: [{key: getattr(row, key) for key in keys} for row in rows]
        for path, rows in joined.merged.rows.items()
    }
    return {"base": base, "checkpoints": tables, "conflicts": _open(joined)}


def redo(session: Session, name: str) -> int:
    """Do the merge of a commit again by its trailers; exit code 0 if it gives the same bytes."""
    from theta.porcelain.merge import dry_run, replay

    oid = session.repo.resolve(f"{name}^{{commit}}")
    with dry_run.rehearsal(session) as apart, console.progress("merging") as progress:
        done = replay.replay(apart, oid, progress)
    if done is None:
        raise UsageError(f"{name} is not a merge", hint="theta merge --replay takes a merge commit")
    for path in done.by_hand:
        console.note(f"{path}: settled by hand in {oid[:12]}; taken from there")
    if done.same:
        console.out(f"{oid[:12]} again: the same tree {done.tree}")
        return 0
    for path in done.differing:
        console.out(f"{path}: not what {oid[:12]} has")
    return int(ExitCode.DIFFERENCES)
