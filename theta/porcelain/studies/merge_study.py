"""The study of a merge that was rehearsed: what becomes of each tensor, and how far the sides agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from theta._blas import one_thread
from theta.merging.engine import RehearsedTensor
from theta.porcelain.studies import diff_study, side_updates
from theta.porcelain.studies.pages_data import Metric, PageData, Section, places
from theta.porcelain.workspace.checkpoints import by_model, model_of
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line
from theta.units import human

METRICS: Final = (
    Metric(
        "opposed",
        "opposed",
        "changed elements that both sides moved in opposite directions",
        "percent",
        linear=True,
    ),
    Metric("apart", "1 - cos", "1 - cosine of the updates of both sides", "number"),
    Metric("ours", "‖Δ ours‖", "relative change of ours ‖Δ‖/‖W‖", "percent"),
    Metric("theirs", "‖Δ theirs‖", "relative change of theirs ‖Δ‖/‖W‖", "percent"),
    Metric("stored", "stored", "bytes that the merge would store anew", "bytes"),
)
_SAME: Final = "same"
_SIDES: Final = 3
"""Base, ours and theirs; of several others the first is compared."""


def study(
    session: Session,
    commits: Sequence[str | None],
    rows: Mapping[str, Sequence[RehearsedTensor]],
    conflicts: Sequence[str],
) -> PageData:
    """Return the data of a page on a rehearsed merge.

    Args:
        session: the repository.
        commits: the base, None when there is none, then ours, then the others.
        rows: path -> what would become of each tensor.
        conflicts: the paths that would be left in conflict.
    """
    names = ("base", "ours", *("theirs" for _ in commits[2:]))
    facts = [
        (name, diff_study.told(session.repo.commit(oid)) if oid else "none")
        for name, oid in zip(names, commits, strict=True)
    ]
    facts.append(("conflicts", ", ".join(conflicts) or "none"))
    session.expect_trees(filter(None, commits[:_SIDES]))
    found = [_Rehearsed(path, part, _sides(session, commits, path)) for path, part in _models(rows)]
    for one in found:
        one.expect(session)
    with one_thread:
        sections = tuple(_section(session, one) for one in found)
    return PageData("merge", "Merge, rehearsed", tuple(facts), sections)


def _models(
    rows: Mapping[str, Sequence[RehearsedTensor]],
) -> Iterator[tuple[str, Sequence[RehearsedTensor]]]:
    """Yield the rows of each checkpoint; those of a model's shards together, if no name is twice there."""
    for name, paths in sorted(by_model(rows).items()):
        together = [row for path in sorted(paths) for row in rows[path]]
        if len({row.name for row in together}) == len(together) and (paths == {name} or name not in paths):
            yield name, together
        else:
            yield from ((path, rows[path]) for path in sorted(paths))


def _sides(session: Session, commits: Sequence[str | None], path: str) -> tuple[Mapping[str, Line], ...]:
    """Return name -> line of the checkpoint in base, ours and theirs, wherever each side has it."""
    sides = [session.at(commit).manifests if commit else {} for commit in commits[:_SIDES]]
    stores = {
        manifest.store for side in sides for file, manifest in side.items() if path in (file, model_of(file))
    }
    return tuple(
        {line.name: line for manifest in side.values() if manifest.store in stores for line in manifest.lines}
        for side in sides
    )


@dataclass(frozen=True)
class _Rehearsed:
    """A checkpoint, its rows, and its lines in base, ours and theirs."""

    path: str
    rows: Sequence[RehearsedTensor]
    sides: Sequence[Mapping[str, Line]]

    def lines(self, name: str) -> list[Line]:
        """Return the lines of a tensor on the sides that have it."""
        return [side[name] for side in self.sides if name in side]

    def expect(self, session: Session) -> None:
        """Announce the tensors that are compared: a partial clone then fetches them together."""
        compared = (self.lines(row.name) for row in self.rows if row.state != _SAME)
        wanted = [line for lines in compared if _is_compared(lines) for line in lines]
        session.objects.expect({line.tree: line.nbytes for line in wanted})


def _is_compared(lines: Sequence[Line]) -> bool:
    return len(lines) == _SIDES and side_updates.comparable(*lines)


def _section(session: Session, found: _Rehearsed) -> Section:
    counts = Counter(row.state for row in found.rows)
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    stored = sum(row.stored for row in found.rows)
    rows = [_row(session, row, found.lines(row.name)) for row in found.rows if row.state != _SAME]
    same = places(row.name for row in found.rows if row.state == _SAME)
    summary = f"{len(found.rows)} tensors: {told}; {human(stored)} to store"
    return Section(found.path, summary, (), METRICS, rows, same)


def _row(session: Session, row: RehearsedTensor, lines: Sequence[Line]) -> dict[str, Any]:
    line = lines[-1] if lines else None
    found: dict[str, Any] = {
        "name": row.name,
        "status": row.state,
        "shape": list(line.shape) if line is not None else [],
        "dtype": line.dtype if line is not None else "",
        "bytes": row.nbytes,
        "stored": row.stored,
        "notes": [["by", row.strategy]] if row.strategy else [],
    }
    return found | side_updates.agreement(session, *lines) if _is_compared(lines) else found
