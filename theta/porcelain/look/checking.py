"""``theta fsck``: check commits, checkpoints and their objects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from theta.errors import MissingObjectsError, NotHereYetError, ThetaError
from theta.porcelain.workspace import closures
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest
from theta.store.read.reassembly import Restorer
from theta.store.read.stored_tensor import StoredTensor
from theta.units import human

MOST: Final = 5
"""The largest number of problems listed for one checkpoint."""


def commits(session: Session) -> tuple[list[str], str]:
    """Return the ids of all commits reachable from HEAD, branches, tags and remotes.

    The second value is what git says when it cannot walk all of them, or "".
    """
    git = session.repo.git()
    head = ["HEAD"] if git.run("rev-parse", "-q", "--verify", "HEAD", check=False).code == 0 else []
    done = git.run("rev-list", "--branches", "--tags", "--remotes", *head, check=False)
    said = done.stderr.decode("utf-8", "replace").strip()
    return done.text.split(), (said.rpartition("\n")[2] or "git rev-list failed") if done.code else ""


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
    found, failure = commits(session)
    if failure:
        yield f"some commits were not checked: {failure}"
    with session.repo.promised.closed():
        for oid in found:
            try:
                yield from _commit(session, oid, seen, owed, read_data=read_data)
            except NotHereYetError:
                owed.commits += 1
            except ThetaError as error:
                error.concern(f"commit {oid[:12]}")
                yield str(error)


def _commit(session: Session, oid: str, seen: set[str], owed: Owed, *, read_data: bool) -> Iterator[str]:
    tree = session.repo.tree_of(oid)
    for path, one in session.at(oid).items():
        if one.oid not in seen:
            seen.add(one.oid)
            found = list(problems_of(session, f"{oid[:12]}:{path}", one.oid, owed, read_data=read_data))
            yield from found[:MOST]
            if len(found) > MOST:
                yield f"{oid[:12]}:{path}: and {len(found) - MOST} more"
    yield from _shared_stores(session, oid)
    if not closures.holds(session, tree):
        yield f"commit {oid[:12]}: .theta/ lacks what the manifests name"


def _shared_stores(session: Session, oid: str) -> Iterator[str]:
    """Yield a line for each checkpoint whose store another one has too, in any case of its letters."""
    owners: dict[str, tuple[str, Manifest]] = {}
    for path, manifest in session.at(oid).manifests.items():
        other, held = owners.setdefault(manifest.store.lower(), (path, manifest))
        if held != manifest:
            yield f"commit {oid[:12]}: {other} and {path} have one store, {manifest.store}"


def problems_of(session: Session, label: str, oid: str, owed: Owed, *, read_data: bool) -> Iterator[str]:
    """Yield one line for each problem of the checkpoint whose manifest is blob ``oid``, called ``label``."""
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
            yield f"{label}#{line.name}: {str(error).removeprefix(f'{line.name}: ')}"


def _tensor(session: Session, line: Line, *, read_data: bool) -> None:
    """Raise a theta error if an object of the tensor is missing or damaged."""
    stored = StoredTensor(session.objects, line)
    missing = [oid for oid in stored.record.files.values() if not session.repo.has(oid)]
    if any(session.repo.promised.bring(oid) for oid in missing) or missing:
        raise MissingObjectsError(f"{len(missing)} of its files are missing")
    if read_data:
        for _ in stored.chunks():
            pass
