"""The study of a merge that was rehearsed: what becomes of each tensor, and how far the sides agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from theta._blas import one_thread
from theta._numpy import np
from theta.dtypes import DTYPES, numpy_dtype
from theta.merging.engine import RehearsedTensor
from theta.porcelain.studies import diff_study
from theta.porcelain.studies.pages_data import Metric, PageData, Section, places
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line
from theta.store.read.stored_tensor import StoredTensor
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
    with one_thread:
        sections = tuple(_section(session, commits, path, found) for path, found in rows.items())
    return PageData("merge", "Merge, rehearsed", tuple(facts), sections)


def _section(
    session: Session, commits: Sequence[str | None], path: str, found: Sequence[RehearsedTensor]
) -> Section:
    lines = [_lines(session, commit, path) for commit in commits[:_SIDES]]
    touched = [row for row in found if row.state != _SAME]
    counts = Counter(row.state for row in found)
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    stored = sum(row.stored for row in found)
    rows = [_row(session, row, lines) for row in touched]
    summary = f"{len(found)} tensors: {told}; {human(stored)} to store"
    return Section(path, summary, (), METRICS, rows, places(row.name for row in found if row.state == _SAME))


def _lines(session: Session, commit: str | None, path: str) -> Mapping[str, Line]:
    if commit is None:
        return {}
    manifest = session.at(commit).manifest(path)
    return manifest.by_name if manifest is not None else {}


def _row(session: Session, row: RehearsedTensor, lines: Sequence[Mapping[str, Line]]) -> dict[str, Any]:
    sides = [side[row.name] for side in lines if row.name in side]
    line = sides[-1] if sides else None
    found: dict[str, Any] = {
        "name": row.name,
        "status": row.state,
        "shape": list(line.shape) if line is not None else [],
        "dtype": line.dtype if line is not None else "",
        "bytes": row.nbytes,
        "stored": row.stored,
        "notes": [["by", row.strategy]] if row.strategy else [],
    }
    return found | _agreement(session, sides) if len(sides) == _SIDES else found


def _agreement(session: Session, sides: Sequence[Line]) -> dict[str, float]:
    """Return how far the updates of two sides agree; nothing for tensors that cannot be compared."""
    base = sides[0]
    if any((side.dtype, side.shape) != (base.dtype, base.shape) for side in sides):
        return {}
    if DTYPES[base.dtype].kind not in ("float", "int", "uint") or not base.nbytes:
        return {}
    total = _Updates()
    for pieces in zip(*(_pieces(session, side) for side in sides), strict=True):
        total.add(*pieces)
    return total.result()


def _pieces(session: Session, line: Line) -> Iterator[Any]:
    dtype = numpy_dtype(line.dtype)
    chunks: Iterable[Any] = StoredTensor(session.objects, line).chunks()
    return (np.frombuffer(bytes(chunk), dtype).astype(np.float64) for chunk in chunks)


class _Updates:
    """Running sums over what two sides did to one tensor."""

    def __init__(self) -> None:
        self._base = self._ours = self._theirs = self._dot = 0.0
        self._either = self._opposed = 0

    def add(self, base: Any, ours: Any, theirs: Any) -> None:
        """Add equally long pieces, float64."""
        one, other = ours - base, theirs - base
        self._base += float(base @ base)
        self._ours += float(one @ one)
        self._theirs += float(other @ other)
        self._dot += float(one @ other)
        self._either += int(np.count_nonzero((one != 0) | (other != 0)))
        self._opposed += int(np.count_nonzero(np.sign(one) * np.sign(other) < 0))

    def result(self) -> dict[str, float]:
        """Return the metrics."""
        norm = (self._ours * self._theirs) ** 0.5
        found: dict[str, float] = {}
        if norm:
            found["opposed"] = self._opposed / self._either
            found["apart"] = 1.0 - self._dot / norm
        if self._base:
            found |= {
                "ours": (self._ours / self._base) ** 0.5,
                "theirs": (self._theirs / self._base) ** 0.5,
            }
        return found
