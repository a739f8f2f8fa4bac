"""Commits whose ``.theta/`` does not agree with their manifests: finding and mending them.

Plain git makes such commits where no hook can act (``rebase --continue`` after a conflict, a
merge that paired renamed twins, hooks switched off).  The manifest is the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pygit2
from pygit2.enums import ObjectType, SortMode

from theta import _fs
from theta.errors import MissingObjectsError
from theta.git.repository import MODE_TREE, STORES, Repository
from theta.porcelain.session import Session
from theta.porcelain.trees import checkpoints
from theta.store import closure
from theta.store.manifest import Manifest
from theta.store.packs import PackWriter

_VERIFIED: Final = "verified-head"


@dataclass(frozen=True)
class Mended:
    """What :func:`mend_range` did: old tip, new tip, and how many commits were rewritten."""

    old: str
    new: str
    count: int


def _manifests(session: Session, tree: pygit2.Tree) -> list[Manifest]:
    found = (session.manifest_or_none(oid) for oid in checkpoints(session.repo, tree).values())
    return [manifest for manifest in found if manifest is not None]


def stores_id(session: Session, tree: pygit2.Tree) -> str | None:
    """The id that ``.theta`` must have in ``tree``; none where it must not be there."""
    dry = PackWriter(session.objects.directory, lambda oid: True)
    return closure.stores_tree(dry, _manifests(session, tree))


def agrees(session: Session, tree: pygit2.Tree) -> bool:
    """Whether ``.theta/`` in ``tree`` is the closure of its manifests."""
    entry = session.repo.entry(tree, STORES)
    return (str(entry.id) if entry is not None else None) == stores_id(session, tree)


def head_agrees(session: Session) -> bool:
    """Whether the commit at HEAD is in agreement; remembered, since history does not change."""
    head = session.repo.head()
    if head is None:
        return True
    note = session.repo.private / _VERIFIED
    if note.exists() and note.read_text() == head:
        return True
    if not agrees(session, session.repo.tree_of(head)):
        return False
    _fs.make_dirs(note.parent)
    _fs.write_atomic(note, head.encode(), durable=False)
    return True


def mend_head(session: Session) -> Mended | None:
    """Rewrite the commit at HEAD if its ``.theta/`` is wrong (never during a rebase)."""
    if session.repo.in_progress() or head_agrees(session):
        return None
    head = session.repo.head()
    return mend_range(session, {head}) if head else None


def mend_range(session: Session, commits: Iterable[str]) -> Mended | None:
    """Rewrite those of ``commits`` that are ancestors of HEAD and wrong, and all after them.

    Author, committer, message and encoding stay; a signature cannot.  HEAD moves by
    compare-and-swap.  Answers none where nothing was wrong.
    """
    repo, wanted = session.repo, set(commits)
    head = repo.head()
    if head is None or head not in wanted:
        return None
    mapping: dict[str, str] = {}
    for commit in _oldest_first(repo, head, wanted):
        new = _rewritten(session, commit, mapping)
        if new != str(commit.id):
            mapping[str(commit.id)] = new
    if head not in mapping:
        return None
    repo.git().run("update-ref", "-m", "theta: .theta/ brought into agreement", "HEAD", mapping[head], head)
    return Mended(head, mapping[head], len(mapping))


def _oldest_first(repo: Repository, head: str, wanted: set[str]) -> list[pygit2.Commit]:
    walker = repo.raw.walk(pygit2.Oid(hex=head), SortMode.TOPOLOGICAL | SortMode.REVERSE)
    for oid in wanted:
        commit = repo.raw[oid]
        assert isinstance(commit, pygit2.Commit)
        for parent in commit.parent_ids:
            if str(parent) not in wanted:
                walker.hide(parent)
    return [commit for commit in walker if str(commit.id) in wanted]


def _rewritten(session: Session, commit: pygit2.Commit, mapping: dict[str, str]) -> str:
    tree = str(commit.tree_id)
    if not agrees(session, commit.tree):
        tree = mended_tree(session, commit.tree)
    parents = [str(parent) for parent in commit.parent_ids]
    if tree == str(commit.tree_id) and not any(parent in mapping for parent in parents):
        return str(commit.id)
    data = _with(commit.read_raw(), tree, [mapping.get(parent, parent) for parent in parents])
    return str(session.repo.raw.odb.write(ObjectType.COMMIT, data))


def mended_tree(session: Session, tree: pygit2.Tree) -> str:
    """Write ``tree`` with the ``.theta/`` that its manifests demand; the answer is its id."""
    manifests = _manifests(session, tree)
    for directory, oid in closure.expected(manifests).items():
        if not session.repo.has(oid):
            raise MissingObjectsError(f"{directory}: its objects are not in this repository")
    pack = session.objects.writer()
    try:
        stores = closure.stores_tree(pack, manifests)
        pack.finish()
    finally:
        pack.abort()
    builder = session.repo.raw.TreeBuilder(tree)
    if stores is not None:
        builder.insert(STORES, pygit2.Oid(hex=stores), MODE_TREE)
    elif builder.get(STORES) is not None:
        builder.remove(STORES)
    return str(builder.write())


def _with(raw: bytes, tree: str, parents: list[str]) -> bytes:
    """Commit ``raw`` with another tree and other parents, unsigned."""
    head, _, body = raw.partition(b"\n\n")
    kept: list[bytes] = []
    dropping = False
    for line in head.split(b"\n"):
        dropping = line.startswith(b"gpgsig") or (dropping and line.startswith(b" "))
        if not dropping and not line.startswith((b"tree ", b"parent ")):
            kept.append(line)
    rows = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents), *kept]
    return b"\n".join(rows) + b"\n\n" + body
