"""Partial clones: the blobs of a checkpoint are fetched when they are wanted, in one batch."""

from __future__ import annotations

from theta.errors import MissingObjectsError
from theta.git import partial
from theta.porcelain.session import Session
from theta.store.manifest import Manifest


def fetch_missing(session: Session, manifest: Manifest) -> None:
    """Fetch what ``manifest`` needs and this clone lacks; does nothing in a full clone."""
    if not session.repo.is_partial:
        return
    missing = {oid for tree in _trees(manifest) for oid in _blobs(session, tree) if not session.repo.has(oid)}
    partial.fetch(session.repo, missing)
    session.objects.refresh()


def _trees(manifest: Manifest) -> set[str]:
    return {manifest.skeleton} | {line.tree for line in manifest.lines}


def _blobs(session: Session, tree: str) -> set[str]:
    try:
        return {oid for _, oid in session.objects.tree(tree).values()}
    except MissingObjectsError:
        return set()
