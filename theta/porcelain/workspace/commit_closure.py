"""``.theta/`` in a commit: whether it is the closure of the manifests of that commit.

A git without theta, or without its hooks, makes commits whose ``.theta/`` is another one, or that have none.
"""

from __future__ import annotations

import contextlib
from typing import Final

from theta import _notes
from theta.errors import DiskError, NoSpaceError
from theta.git.object_format import TREE
from theta.git.object_values import Tree, tree_bytes
from theta.git.repository import STORES
from theta.porcelain.workspace.checkpoints import Checkpoints, by_content
from theta.porcelain.workspace.session import Session
from theta.store import closure
from theta.store.odb.packs import PackWriter

_VERIFIED: Final = "verified-head"


def checkpoints(session: Session, tree: Tree) -> Checkpoints:
    """Return the checkpoints of ``tree``.

    An untracked manifest counts too if ``.theta/`` has its store: deleting a line of ``.gitattributes``
    must not delete the tensors.
    """
    listed = session.of_tree(tree)
    stores = tree.get(STORES)
    names = {entry.name for entry in stores.tree} if stores is not None and stores.tree is not None else set()
    extra = names - listed.by_store.keys()
    if not extra:
        return listed
    files = {path: entry.id for path, entry in session.repo.walk_blobs(tree) if path not in listed}
    others = Checkpoints(by_content(session.repo, files), session.manifest_or_none)
    foreign = {path for path, manifest in others.manifests.items() if manifest.store not in extra}
    more = (one for path, one in others.items() if path not in foreign)
    return Checkpoints([*listed.values(), *more], session.manifest_or_none)


def stores_id(session: Session, tree: Tree) -> str | None:
    """Return the id that ``.theta`` must have in ``tree``; None when it must be absent."""
    dry = PackWriter(session.objects.directory, lambda _: True, session.repo.format)
    return closure.stores_tree(dry, checkpoints(session, tree).manifests.values())


def agrees(session: Session, tree: Tree) -> bool:
    """Return whether ``.theta/`` in ``tree`` is the closure of its manifests."""
    entry = tree.get(STORES)
    return (entry.id if entry is not None else None) == stores_id(session, tree)


def holds(session: Session, tree: Tree) -> bool:
    """Return whether ``.theta/`` in ``tree`` has all that its manifests name.

    It may have stores of no manifest, too: a git without theta deleted a checkpoint, or committed the file as
    plain bytes.  The next commit leaves them out.
    """
    entry = tree.get(STORES)
    there = entry.tree if entry is not None else None
    stores = checkpoints(session, tree).by_store.keys()
    kept = [(one.name, one.mode, one.id) for one in there or () if one.name in stores]
    body = tree_bytes(kept)
    form = session.repo.format
    return stores_id(session, tree) == (form.object_id(TREE, (body,), len(body)).hex() if kept else None)


def head_holds(session: Session) -> bool:
    """Return whether the commit at HEAD has all that its manifests name."""
    head = session.repo.head()
    return head is None or head_agrees(session) or holds(session, session.repo.tree_of(head))


def head_agrees(session: Session) -> bool:
    """Return whether the commit at HEAD is in agreement; a positive result is cached by its id."""
    head = session.repo.head()
    if head is None:
        return True
    note = session.repo.private / _VERIFIED
    if _notes.read(note) == head:
        return True
    if not agrees(session, session.repo.tree_of(head)):
        return False
    with contextlib.suppress(DiskError, NoSpaceError):
        _notes.write(note, head)
    return True
