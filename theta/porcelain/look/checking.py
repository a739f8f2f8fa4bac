"""``theta fsck``: check commits, checkpoints and their objects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from theta.errors import MissingObjectsError, NotHereYetError, ThetaError
from theta.porcelain.workspace import agreement
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line
from theta.store.read.reassembly import Restorer
from theta.store.read.stored_tensor import StoredTensor
from theta.units import human

MOST: Final = 5
"""The largest number of problems listed for one checkpoint."""


def commits(session: Session) -> list[str]:
    """Return the ids of all commits reachable from HEAD, branches, tags and remotes."""
    return (
        session.repo.git()
        .run("rev-list", "--branches", "--tags", "--remotes", "HEAD", check=False)
        .text.split()
    )


@dataclass
class Owed:
    """Counts of what was not checked because this partial clone has not fetched it yet."""

    commits: int = 0
    tensors: int = 0
    nbytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.commits or self.tensors)

    def __str__(self) -> str:
        return (
            f"not checked, since it is not here yet: {self.tensors} tensors ({human(self.nbytes)}),"
            f" and all of {self.commits} commits"
        )


def problems(session: Session, owed: Owed, *, read_data: bool) -> Iterator[str]:
    """Yield one line for each problem; ``read_data`` decodes every chunk.

    Nothing is fetched: ``owed`` counts what a partial clone does not have yet.
    """
    seen: set[str] = set()
    with session.repo.promised.closed():
        for oid in commits(session):
            try:
                yield from _commit(session, oid, seen, owed, read_data=read_data)
            except NotHereYetError:
                owed.commits += 1


def _commit(session: Session, oid: str, seen: set[str], owed: Owed, *, read_data: bool) -> Iterator[str]:
    tree = session.repo.tree_of(oid)
    for path, one in session.at(oid).items():
        if one.oid not in seen:
            seen.add(one.oid)
            found = list(_checkpoint(session, f"{oid[:12]}:{path}", one.oid, owed, read_data=read_data))
            yield from found[:MOST]
            if len(found) > MOST:
                yield f"{oid[:12]}:{path}: and {len(found) - MOST} more"
    if not agreement.agrees(session, tree):
        yield f"commit {oid[:12]}: .theta/ does not agree with the manifests"


def _checkpoint(session: Session, label: str, oid: str, owed: Owed, *, read_data: bool) -> Iterator[str]:
    try:
        manifest = session.manifest(oid)
        with contextlib.suppress(NotHereYetError):
            _ = Restorer(session.objects, manifest).plan
    except ThetaError as error:
        error.concern(label)
        yield str(error)
        return
    for line in manifest.lines:
        try:
            _tensor(session, line, read_data=read_data)
        except NotHereYetError:
            owed.tensors += 1
            owed.nbytes += line.nbytes
        except ThetaError as error:
            error.concern(f"{label}#{line.name}")
            yield str(error)


def _tensor(session: Session, line: Line, *, read_data: bool) -> None:
    """Raise a theta error if an object of the tensor is missing or damaged."""
    stored = StoredTensor(session.objects, line)
    missing = [oid for oid in stored.record.files.values() if not session.repo.has(oid)]
    if any(session.repo.promised.bring(oid) for oid in missing) or missing:
        raise MissingObjectsError(f"{len(missing)} of its files are missing")
    if read_data:
        for _ in stored.chunks():
            pass
