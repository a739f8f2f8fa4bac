"""The study of one commit, or of one checkpoint in it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from theta.errors import NotFoundError, no_tensor
from theta.porcelain.look import diffing, showing
from theta.porcelain.look.describing import Description
from theta.porcelain.look.diffing import Sides
from theta.porcelain.studies import diff_study
from theta.porcelain.studies.pages_data import Metric, PageData, Section
from theta.porcelain.workspace.session import Session
from theta.units import human

METRICS: Final = (
    Metric("ratio", "ratio", "stored bytes over raw bytes", "percent"),
    Metric("stored", "stored", "stored bytes", "bytes"),
    Metric("bytes", "raw", "raw bytes", "bytes"),
)


def of_commit(session: Session, name: str, against: str | None, glob: str | None) -> PageData:
    """Return the data of a page on what a commit changed, against its first parent or ``against``.

    Raises :class:`NotFoundError` when there is no such commit.
    """
    oid, other = _commit(session, name), None if against is None else _commit(session, against)
    commit = session.repo.commit(oid)
    if other is None:
        found = diffing.of_commit(session, oid)
    else:
        found = diffing.compare(session, Sides(other, oid), None)
    facts = [("commit", diff_study.told(commit))]
    if other is not None:
        facts.append(("against", diff_study.told(session.repo.commit(other))))
    body = commit.message.strip().partition("\n")[2].strip()
    sections = diff_study.sections_of(session, found, glob)
    title = diff_study.subject_of(commit) or oid[:12]
    return PageData("show", title, tuple(facts), sections, message=body)


def _commit(session: Session, name: str) -> str:
    oid = session.repo.commit_of(name)
    if oid is None:
        raise NotFoundError(f"there is no commit {name}")
    return oid


def of_checkpoint(session: Session, name: str, glob: str | None) -> PageData:
    """Return the data of a page on how the tensors of ``REV:PATH`` that match ``glob`` are stored."""
    whole = showing.codecs(session, name)
    found = [one for one in whole if fnmatchcase(one.line.name, glob or "*")]
    if glob is not None and not found:
        raise no_tensor(glob, [one.line.name for one in whole])
    return PageData("show", name, (), (_section(name, found),))


def _section(name: str, found: Sequence[Description]) -> Section:
    raw, stored = sum(one.line.nbytes for one in found), sum(one.stored for one in found)
    summary = f"{len(found)} tensors, {human(raw)} in the file, {human(stored)} stored"
    rows = [
        {
            "name": one.line.name,
            "status": "",
            "shape": list(one.line.shape),
            "dtype": one.line.dtype,
            "bytes": one.line.nbytes,
            "stored": one.stored,
            "ratio": one.ratio,
            "codecs": one.chain,
        }
        for one in found
    ]
    return Section(name.partition(":")[2], summary, (), METRICS, rows)
