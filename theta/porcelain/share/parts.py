"""Pushing files ahead of the commits that need them, in parts below the limit of a host.

A part is a commit whose tree lists files by their ids, below ``.theta/``, where git looks for no deltas.  It
is pushed to ``refs/theta/parts/``.
Each part is the child of the one before, so that the last one stands for all.  What a push sends follows
from parents: for the last push the new commits get the last part as another parent, in a file of grafts
that only that git sees.  A part is the same whenever it is made, so that a push that was cut goes on
after the last part that the remote has.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from theta import _fs
from theta.git import commit_graph
from theta.git.object_values import MODE_BLOB, MODE_TREE
from theta.git.repository import STORES
from theta.porcelain.workspace.session import Session

REFS: Final = "refs/theta/parts/"
_REF: Final = re.compile(rf"{REFS}[0-9a-f]{{16}}")
"""A name that theta gives; a remote may send any, which git might read as a refspec."""
_SPARE: Final = 16
"""A part leaves this share of the limit to what git adds to it."""
_LEAST: Final = 4 << 10
"""Bytes of a limit below which a part would be a file alone."""


@dataclass(frozen=True)
class Sent:
    """The parts that a remote has of a push that was cut.

    Attributes:
        ref: where the last one is; "" if there is none.
        last: the last one, a commit.
        blobs: the files of all of them.
        trees: name -> tree of each of them.
    """

    ref: str = ""
    last: str = ""
    blobs: frozenset[str] = frozenset()
    trees: Mapping[str, str] = field(default_factory=dict)


def sent(session: Session, there: Mapping[str, str]) -> Sent:
    """Return the parts that this repository sent, among the refs ``there`` of a remote."""
    found = [(ref, oid) for ref, oid in there.items() if _REF.fullmatch(ref) and session.repo.has(oid)]
    for ref, oid in found:
        listed = session.repo.tree_of(oid).get(STORES)
        folders = {entry.name: entry.id for entry in (listed.tree if listed else None) or ()}
        trees = [session.repo.tree_here(folder) for folder in folders.values()]
        if trees and all(trees):
            return Sent(ref, oid, frozenset(file.id for one in trees for file in one or ()), folders)
    return Sent()


def cut(blobs: Mapping[str, int], limit: int) -> list[list[str]]:
    """Return the files in groups below ``limit`` bytes each, in their order."""
    room = max(limit - limit // _SPARE, _LEAST)
    groups: list[list[str]] = []
    left = 0
    for oid, size in blobs.items():
        if size > left or not groups:
            groups.append([])
            left = room
        groups[-1].append(oid)
        left -= size
    return groups


def commits(session: Session, before: Sent, groups: Iterable[Sequence[str]]) -> Iterator[str]:
    """Write a part for each group of files, after those that were sent ``before``; yield their commits."""
    last, trees = before.last, dict(before.trees)
    for group in groups:
        rows = {oid: (MODE_BLOB, oid) for oid in group}
        trees[f"part-{len(trees):06}"] = commit_graph.write_tree(session.repo, rows)
        listed = commit_graph.write_tree(
            session.repo, {name: (MODE_TREE, oid) for name, oid in trees.items()}
        )
        tree = commit_graph.write_tree(session.repo, {STORES: (MODE_TREE, listed)})
        last = commit_graph.unnamed_commit(session.repo, tree, [last] if last else [])
        yield last


@contextlib.contextmanager
def grafted(session: Session, tips: Iterable[str], parents: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the environment of a git for which ``tips`` have more ``parents``, whose files they need not."""
    new = [oid for tip in tips if (oid := session.repo.commit_of(tip)) is not None]
    rows = [" ".join([oid, *dict.fromkeys([*session.repo.commit(oid).parents, *parents])]) for oid in new]
    with _fs.temporary_directory(_fs.own_temporary("grafts"), session.scratch()) as place:
        _fs.write_atomic(place / "grafts", "".join(f"{row}\n" for row in rows).encode(), durable=False)
        yield {"GIT_GRAFT_FILE": str(place / "grafts")}
