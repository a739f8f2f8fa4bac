"""Whether commits differ in checkpoints: if not, git joins and applies them by itself."""

from __future__ import annotations

from collections.abc import Sequence

from theta.git import in_progress
from theta.git.object_values import Tree
from theta.git.repository import STORES, Repository
from theta.merging.documents.model_files import BESIDE, VOCABULARIES
from theta.porcelain.workspace.session import Session


def joins(session: Session, names: Sequence[str]) -> bool:
    """Return whether a merge of the commits ``names`` into HEAD joins histories, but no checkpoints.

    False while another merge is in progress.
    """
    repo, head = session.repo, session.repo.head()
    commits = [repo.commit_of(name) for name in names]
    if head is None or in_progress.not_concluded(repo):
        return False
    history = repo.backend.history
    is_new = any(one and one != head and not history.descends(head, one) for one in commits)
    return is_new and all(_same(session, head, one) for one in commits)


def applies(session: Session, names: Sequence[str]) -> bool:
    """Return whether the commits ``names``, one each, change no checkpoint of their only parent."""
    repo = session.repo
    commits = [repo.commit_here(found) if (found := repo.commit_of(name)) else None for name in names]
    return bool(commits) and all(
        one is not None and len(one.parents) == 1 and _same(session, one.id, one.parents[0])
        for one in commits
    )


def _same(session: Session, one: str, other: str | None) -> bool:
    """Return whether two commits have the same checkpoints, and say the same of their tokens.

    False if a tree is not here.
    """
    found = [_stores(session.repo, oid) for oid in (one, other)]
    if other is None or found[0] is None or found[0] != found[1]:
        return False
    manifests = [{path: item.oid for path, item in session.at(oid).items()} for oid in (one, other)]
    if manifests[0] != manifests[1]:
        return False
    first, second = session.repo.tree_of(one), session.repo.tree_of(other)
    folders = {path.rpartition("/")[0] for path in manifests[0]}
    return all(_says_same(first, second, folder) for folder in folders)


def _says_same(one: Tree, other: Tree, folder: str) -> bool:
    """Return whether files in ``folder`` that tell or name tokens are the same, if there is a vocabulary."""
    prefix = f"{folder}/" if folder else ""
    found = {name: [tree.get(prefix + name) for tree in (one, other)] for name in (*VOCABULARIES, *BESIDE)}
    if not any(entry is not None for name in VOCABULARIES for entry in found[name]):
        return True
    return all(len({entry.id if entry is not None else "" for entry in pair}) == 1 for pair in found.values())


def _stores(repo: Repository, oid: str | None) -> str | None:
    """Return the id of ``.theta/`` in commit ``oid``, "" without one; None if it cannot be read here."""
    commit = repo.commit_here(oid) if oid else None
    tree = repo.tree_here(commit.tree) if commit is not None else None
    if tree is None:
        return None
    entry = tree.get(STORES)
    return entry.id if entry is not None else ""
