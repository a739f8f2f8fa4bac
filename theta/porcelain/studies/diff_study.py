"""The study of a diff: each changed tensor with its numbers, histogram, rows, spectrum and storage."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from theta._blas import one_thread
from theta.dtypes import numpy_dtype
from theta.errors import MissingObjectsError
from theta.git.object_values import Commit
from theta.porcelain.look import comparison, diffing
from theta.porcelain.look.comparison import DiffRequest, TensorChanges
from theta.porcelain.look.diffing import Compared, Numbers
from theta.porcelain.studies.pages_data import Metric, PageData, Section, places
from theta.porcelain.studies.tallies import Details, Tally
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.changes import Change
from theta.store.format.manifest import Line
from theta.store.read.tensor_records import ranks, record_of
from theta.units import human

METRICS: Final = (
    Metric("relative", "‖Δ‖/‖W‖", "relative change ‖Δ‖/‖W‖", "percent"),
    Metric("distance", "1 - cos", "1 - cosine of old and new", "number"),
    Metric("changed", "changed", "elements changed", "percent", linear=True),
    Metric("largest", "max|Δ|", "largest change of an element", "number"),
    Metric("stored", "stored", "bytes newly stored", "bytes"),
)


def study(session: Session, request: DiffRequest, progress: Progress | None = None) -> PageData:
    """Return the data of a page on the differences that ``request`` selects; values are read once."""
    found = comparison.diff(session, request, progress)
    sections = sections_of(session, found.checkpoints, request.tensors)
    old, new = request.sides.old, request.sides.new
    facts = (("from", _side(session, old)), ("to", _side(session, new)))
    return PageData("diff", f"{_name(old)} → {_name(new)}", facts, sections)


def _name(side: str | None) -> str:
    if side is None:
        return "worktree"
    return (side[:12] if len(side) in (40, 64) else side) or "index"


def _side(session: Session, side: str | None) -> str:
    """Return one line on a side: of a commit its subject, author and date."""
    if not side:
        return _name(side)
    oid = session.repo.commit_of(side)
    return _name(side) if oid is None else told(session.repo.commit(oid))


def subject_of(commit: Commit) -> str:
    """Return the first line of the message of a commit."""
    return commit.message.strip().partition("\n")[0]


def told(commit: Commit) -> str:
    """Return one line on a commit."""
    zone = datetime.timezone(datetime.timedelta(minutes=commit.author.zone))
    date = datetime.datetime.fromtimestamp(commit.author.time, zone)
    return f"{commit.id[:12]} {subject_of(commit)} ({commit.author.name}, {date:%Y-%m-%d %H:%M})"


def sections_of(session: Session, found: Sequence[Compared], glob: str | None) -> tuple[Section, ...]:
    """Return a section for each changed checkpoint, with the tensors whose names match ``glob``."""
    diffing.expect(session, found, glob)
    with one_thread:
        return tuple(_section(session, item, glob) for item in found)


def _section(session: Session, item: Compared, glob: str | None) -> Section:
    changes = [change for change in item.changes.tensors if fnmatchcase(change.name, glob or "*")]
    stored = _stored(session, item, changes)
    rows = [row(session, item, change, stored.get(change.name)) for change in changes]
    touched = {change.name for change in item.changes.tensors}
    names = [name for name in diffing.names_after(session, item) if name not in touched]
    facts = tuple(_facts(item, changes, stored))
    return Section(item.path, item.changes.summary(), facts, METRICS, rows, places(names))


def _facts(
    item: Compared, changes: list[Change], stored: Mapping[str, _Storage]
) -> Iterator[tuple[str, str]]:
    if len(item.paths) > 1:
        yield "files", ", ".join(item.paths)
    raw = sum(change.new.nbytes for change in changes if change.new)
    yield "changed tensors", f"{len(changes)}, {human(raw)}"
    if stored:
        yield "newly stored for them", human(sum(one.stored for one in stored.values()))
    if item.changes.container:
        yield "container", "header or metadata changed"


@dataclass(frozen=True)
class _Storage:
    """The codecs of a new value, the bytes of its objects that the old value does not have, and ranks."""

    codecs: str
    stored: int
    ranks: tuple[int, ...]


def _stored(session: Session, item: Compared, changes: list[Change]) -> dict[str, _Storage]:
    """Return how the new values are stored, for those that are and whose objects are here."""
    if item.places:
        return {}
    names = {change.name: change.old_name or change.name for change in changes if change.new is not None}
    before, after = (_lines(session, oids) for oids in (item.old, item.new))
    found = {}
    for name, old_name in names.items():
        if name in after:
            with contextlib.suppress(MissingObjectsError):
                found[name] = _storage(session, before.get(old_name), after[name])
    return found


def _lines(session: Session, oids: Iterable[str]) -> dict[str, Line]:
    return {line.name: line for oid in oids for line in session.manifest(oid).lines}


def _storage(session: Session, old: Line | None, new: Line) -> _Storage:
    record = record_of(session.objects, new)
    known = set(record_of(session.objects, old).files.values()) if old is not None else set()
    stored = sum(session.objects.size(oid) for oid in set(record.files.values()) - known)
    codecs = " + ".join(layer.codec.partition("/")[0] for layer in record.layers)
    return _Storage(codecs, stored, ranks(session.objects, record))


def row(session: Session, item: Compared, change: Change, stored: _Storage | None) -> dict[str, Any]:
    """Return one tensor as plain data."""
    side = change.new or change.old
    assert side is not None
    found: dict[str, Any] = {
        "name": change.name,
        "status": change.status,
        "shape": list(side.shape),
        "dtype": side.dtype,
        "bytes": side.nbytes,
    }
    if change.old is not None and change.new is not None:
        found |= _before(change)
    if stored is not None:
        found |= {"stored": stored.stored, "codecs": stored.codecs, "ranks": list(stored.ranks)}
    if (measured := measure(session, item, change)) is not None:
        numbers, details = measured
        found |= _metrics(numbers) | asdict(details)
        if numbers.compared is not None:
            found["part"] = diffing.part(change, numbers.compared)
    return found


def _before(change: Change) -> dict[str, Any]:
    old, new = change.old, change.new
    assert old is not None
    assert new is not None
    found: dict[str, Any] = {"old_name": change.old_name} if change.old_name else {}
    if old.shape != new.shape:
        found["old_shape"] = list(old.shape)
    if old.dtype != new.dtype:
        found["old_dtype"] = old.dtype
    return found


def measure(session: Session, item: Compared, change: Change) -> tuple[Numbers, Details] | None:
    """Return the numbers and the tallies of a changed tensor, read once; None when it has none."""
    shape = diffing.block(change)
    if shape is None or change.old is None:
        return None
    is_complex = numpy_dtype(change.old.dtype).kind == "c"
    tally = Tally((*shape, 2) if is_complex else shape)
    numbers = diffing.numbers(session, item, change, tally.add)
    return None if numbers is None else (numbers, tally.details())


def _metrics(numbers: Numbers) -> dict[str, Any]:
    return {
        "relative": numbers.relative,
        "distance": max(1.0 - numbers.cosine, 0.0),
        "cosine": numbers.cosine,
        "changed": numbers.changed,
        "largest": numbers.largest,
    }


def as_json(session: Session, request: DiffRequest, item: Compared) -> dict[str, Any]:
    """Return the report of one checkpoint, each tensor with its numbers and tallies."""
    kept = tuple(filter(request.wants, item.changes.tensors))
    with one_thread:
        found = {change.name: measure(session, item, change) for change in kept}
    measured = {name: one for name, one in found.items() if one is not None}
    modules = comparison.modules_of(session, request, item, kept)
    numbers = {name: one for name, (one, _) in measured.items()}
    report = TensorChanges(item, kept, numbers, modules).as_json()
    for row in report["tensors"]:
        if row["name"] in measured:
            row["details"] = asdict(measured[row["name"]][1])
    return report
