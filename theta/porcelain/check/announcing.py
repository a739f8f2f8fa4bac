"""Announcing to a partial clone all that a gate will read, so that it is fetched together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from theta.porcelain.check.beside_rules import TOKEN_FILES
from theta.porcelain.check.check_rules import CheckRules
from theta.porcelain.check.version_files import PICKLED
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session
from theta.store.format import listings
from theta.store.format.manifest import Manifest

_BESIDE: Final = ("config.json", *TOKEN_FILES, "README.md", ".index.json")
"""Ends of the names of files that are read beside a checkpoint; those of pickles come to them."""


def expect(session: Session, commit: str | None, before: str | None, rules: CheckRules) -> Mapping[str, int]:
    """Announce the checkpoints of ``commit`` (None is the worktree), and what is compared of ``before``.

    Returns the trees of their tensors with the bytes that these stand for; nothing in a full clone.
    """
    if not session.repo.promised.is_partial:
        return {}
    revisions = [oid for oid in (commit, before) if oid is not None]
    session.expect_trees(revisions)
    for oid in revisions:
        session.repo.promised.expect(_beside(session, oid))
    now = session.at(commit).manifests.values() if commit is not None else _in_worktree(session)
    trees = {tree: size for manifest in now for tree, size in manifest.trees().items()}
    for manifest in session.at(before).manifests.values() if before is not None else ():
        unread = {line.name for line in manifest.lines if rules.budget(line.name) is None}
        trees |= manifest.trees(unread)
    session.objects.expect(trees)
    return trees


def _beside(session: Session, commit: str) -> Iterator[str]:
    files = session.repo.walk_blobs(session.repo.tree_of(commit))
    return (entry.id for path, entry in files if path.endswith((*_BESIDE, *PICKLED)))


def _in_worktree(session: Session) -> Iterable[Manifest]:
    """Yield the manifests that stand in the worktree in place of files."""
    for path in session.index.readable:
        place = session.repo.worktree / path
        text = worktree.peek(place) if place.is_file() else None
        if text is not None:
            yield listings.read(session.objects, text)
