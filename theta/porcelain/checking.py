"""``theta fsck``: are commits, checkpoints and their objects what they should be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from theta.errors import ThetaError
from theta.porcelain import mend
from theta.porcelain.session import Session
from theta.store.restore import Restorer

MOST: Final = 5
"""Problems that are told of one checkpoint."""


def commits(session: Session) -> list[str]:
    """All commits that branches, tags and remotes name."""
    return (
        session.repo.git()
        .run("rev-list", "--branches", "--tags", "--remotes", "HEAD", check=False)
        .text.split()
    )


def problems(session: Session, *, read_data: bool) -> Iterator[str]:
    """One line for each thing that is wrong; with ``read_data`` every chunk is decoded."""
    seen: set[str] = set()
    for oid in commits(session):
        tree = session.repo.tree_of(oid)
        if not mend.agrees(session, tree):
            yield f"commit {oid[:12]}: .theta/ does not agree with the manifests"
        for path, manifest in session.in_tree(oid).items():
            if manifest not in seen:
                seen.add(manifest)
                found = list(_checkpoint(session, f"{oid[:12]}:{path}", manifest, read_data=read_data))
                yield from found[:MOST]
                if len(found) > MOST:
                    yield f"{oid[:12]}:{path}: and {len(found) - MOST} more"


def _checkpoint(session: Session, label: str, oid: str, *, read_data: bool) -> Iterator[str]:
    try:
        manifest = session.manifest(oid)
        restorer = Restorer(session.objects)
        restorer.size(manifest)
    except ThetaError as error:
        yield f"{label}: {error}"
        return
    for line in manifest.lines:
        try:
            record = restorer.record(line)
            missing = [name for name, blob in record.files.items() if not session.repo.has(blob)]
            if missing:
                yield f"{label}#{line.name}: {len(missing)} of its files are missing"
            elif read_data:
                for _ in restorer.tensor(line):
                    pass
        except ThetaError as error:
            yield f"{label}#{line.name}: {error}"
