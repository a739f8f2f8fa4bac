"""Doing a merge again, from its parents and its trailers, and comparing the trees."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pygit2

from theta.porcelain import merging, octopus, recipes
from theta.porcelain.merging import Joined
from theta.porcelain.session import Session
from theta.progress import Progress


@dataclass
class Replayed:
    """What came of it: the tree, the paths taken from the commit, and those that differ."""

    tree: str
    same: bool
    by_hand: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


def replay(session: Session, oid: str, progress: Progress | None = None) -> Replayed | None:
    """Merge the parents of commit ``oid`` as its trailers say; none where it is no merge.

    What git and the trailers leave in conflict was settled by hand, and is taken from the commit.
    """
    commit = session.repo.raw[oid]
    assert isinstance(commit, pygit2.Commit)
    if len(commit.parent_ids) < 2:
        return None
    rounds = recipes.rounds(session, oid)
    how = replace(recipes.how_of(session, rounds), progress=progress)
    base = next((one.base for one in rounds if one.base), None)
    joined = octopus.join(session, [str(parent) for parent in commit.parent_ids], how, base)
    by_hand = sorted({*joined.open_files, *joined.merged.conflicts})
    tree = merging.result_tree(session, _with(session, joined, commit.tree, by_hand), joined.merged)
    if tree == str(commit.tree_id):
        return Replayed(tree, True, by_hand)
    again = session.repo.raw[tree]
    assert isinstance(again, pygit2.Tree)
    return Replayed(tree, False, by_hand, _differing(session, again, commit.tree))


def _with(session: Session, joined: Joined, tree: pygit2.Tree, paths: list[str]) -> pygit2.Tree:
    """The joined tree with ``paths`` as ``tree`` has them."""
    index = pygit2.Index()
    index.read_tree(joined.tree)
    for path in paths:
        entry = session.repo.entry(tree, path)
        if path in index:
            index.remove(path)
        if entry is not None:
            index.add(pygit2.IndexEntry(path, entry.id, entry.filemode))
    found = session.repo.raw[index.write_tree(session.repo.raw)]
    assert isinstance(found, pygit2.Tree)
    return found


def _differing(session: Session, one: pygit2.Tree, other: pygit2.Tree) -> list[str]:
    sides = [{path: str(entry.id) for path, entry in session.repo.walk_blobs(tree)} for tree in (one, other)]
    return sorted(
        path for path in sides[0].keys() | sides[1].keys() if sides[0].get(path) != sides[1].get(path)
    )
