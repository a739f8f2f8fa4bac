"""``.theta/`` in the index and in a commit: the closure of the manifests there.

A git without theta, or without its hooks, makes commits whose ``.theta/`` is another one, or that have none.

Where HEAD has another ``.theta/`` and stays so, since others may have that commit, the index has that of HEAD
until a checkpoint is staged that HEAD has not: git would take anything else for changes of the user, and
refuse to leave that commit.  Refs hold what such an index does not name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _notes
from theta.errors import DiskError, ManifestError, MissingObjectsError, NoSpaceError
from theta.git.backends.index_entries import Staged
from theta.git.object_format import TREE
from theta.git.object_values import Tree, tree_bytes
from theta.git.repository import STORES
from theta.porcelain.setup import sparse_patterns
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.checkpoints import Checkpoints, by_content
from theta.porcelain.workspace.session import Change, Session
from theta.store import closure, held_packs
from theta.store.files.file_source import Identity
from theta.store.format.manifest import Manifest
from theta.store.format.names import numbered, store_of
from theta.store.odb.packs import PackWriter

if TYPE_CHECKING:
    from theta.git.backends.protocols import EditedIndex

_FILES: Final = (0o100644, 0o100755)
_BELOW: Final = f"{STORES}/"
_VERIFIED: Final = "verified-head"


def complete(session: Session, manifest: Manifest) -> bool:
    """Return whether the repository has the trees that ``manifest`` names."""
    return session.repo.has(manifest.skeleton) and all(session.repo.has(line.tree) for line in manifest.lines)


def store_name(path: str, taken: set[str]) -> str:
    """Return a name for the store of a new checkpoint: its path as one component, not in ``taken``."""
    base = store_of(path)
    name, number = base, 2
    while name.lower() in {other.lower() for other in taken}:
        name, number = numbered(base, number), number + 1
    return name


@contextlib.contextmanager
def following(session: Session) -> Iterator[Change]:
    """Return a context manager of a change that stages checkpoints; ``.theta/`` follows in the same index.

    The index is written once, at the end of the block.
    """
    sparse_patterns.require(session.repo)  # git may lock the index for it
    with session.change() as change:
        yield change
        kept = _follow(session, change.index, session.edited(change.index))
    held_packs.adopt(session.repo, kept)


def sync(session: Session, index: Path | None = None, *, to_commit: bool = False) -> list[str]:
    """Make ``.theta/`` in the index follow the staged manifests, or their closure if it is ``to_commit``.

    Returns the paths of tracked files that are staged as raw bytes.
    """
    if session.index_of(index).manifests:
        sparse_patterns.require(session.repo)
    with session.change(index) as change:
        edit = change.index
        staged = session.index_of(index)  # again, as it is under the lock
        kept = (_close if to_commit else _follow)(session, edit, staged)
    held_packs.adopt(session.repo, kept)
    return [path for path in staged if path not in staged.manifests]


def is_as_committed(session: Session, staged: Checkpoints) -> bool:
    """Return whether the checkpoints ``staged`` are those of HEAD, and ``.theta/`` of HEAD is not theirs."""
    if session.repo.head() is None or staged.conflicts:
        return False
    with contextlib.suppress(ManifestError, MissingObjectsError):
        return not head_agrees(session) and ids(staged) == ids(session.head)
    return False


def ids(found: Checkpoints) -> dict[str, str]:
    """Return path -> id of the blob."""
    return {path: one.oid for path, one in found.items()}


def _follow(session: Session, edit: EditedIndex, staged: Checkpoints) -> set[str]:
    """Make ``.theta/`` in ``edit`` the closure of the manifests of ``staged``, or that of HEAD if it stays.

    Returns the ids of the manifests whose trees it names.
    """
    if not is_as_committed(session, staged):
        return _close(session, edit, staged)
    for manifest in staged.manifests.values():
        _hold(session, manifest)
    stores = _stores(session.repo.tree_of("HEAD"))
    files = session.repo.walk_blobs(stores, _BELOW) if stores is not None else ()
    closure.put_back(edit, dict(files), edit.paths_under(STORES))
    return set()


def _hold(session: Session, manifest: Manifest) -> None:
    """Keep what ``manifest`` names, if it is here, for as long as an index names the manifest."""
    repo = session.repo
    if not held_packs.is_held(repo, manifest.oid) and all(map(repo.has, closure.places(manifest).values())):
        hold(session, manifest)


def hold(session: Session, manifest: Manifest) -> None:
    """Keep what ``manifest`` names, all of which is here, until git has written its index."""
    with session.objects.writer(keep=True) as pack:
        tree = closure.store_tree(pack, manifest)
    held_packs.hold(session.repo, manifest.oid, tree, pack.path)


def _close(session: Session, edit: EditedIndex, staged: Checkpoints) -> set[str]:
    """Make ``.theta/`` in ``edit`` the closure of the manifests of ``staged``; return the ids of these.

    A manifest whose store is used by another one gets a new store.  For a checkpoint in conflict one
    side is kept (ours if there is one).  Beside a manifest that cannot be read all stores stay: it may be
    the one that names them.
    """
    found = dict(staged.manifests)
    for path, manifest in _distinct(session, found).items():
        oid = session.repo.write_blob(manifest.data)
        old = staged[path]
        edit.put(Staged(path, oid, old.mode, stat=_stat_if_same(session, path, old.oid, oid)))
        found[path] = manifest
    kept = [*found.values(), *_sides(staged, session)]
    held = edit.paths_under(STORES)
    kept += _without_attribute(session, edit, kept, staged.stages.keys(), held)
    if any(session.malformed(staged.oid(path)) for path in staged.keys() - found.keys()):
        stores = {manifest.store for manifest in kept}
        held = {path: value for path, value in held.items() if path.split("/", 2)[1] in stores}
    closure.sync_index(edit, session.objects, kept, held)
    return {manifest.oid for manifest in found.values()}


def _sides(staged: Checkpoints, session: Session) -> list[Manifest]:
    """Return one side of each checkpoint in conflict: ours, else theirs, else the base."""
    chosen = (next(stages[n] for n in (2, 3, 1) if n in stages) for stages in staged.conflicts.values())
    found = (session.manifest_or_none(one.oid) for one in chosen)
    return [manifest for manifest in found if manifest is not None]


def _without_attribute(
    session: Session, edit: EditedIndex, kept: list[Manifest], listed: Collection[str], held: Iterable[str]
) -> list[Manifest]:
    """Return the manifests of those stores in the index, of the paths ``held``, that no tracked path uses.

    Deleting a line of ``.gitattributes`` must not delete the tensors.
    """
    stores = {path.split("/", 2)[1] for path in held} - {m.store for m in kept}
    if not stores:
        return []
    files = {e.path: e.oid for e in edit.entries() if e.stage == 0 and e.mode in _FILES}
    others = {path: oid for path, oid in files.items() if path not in listed and not path.startswith(_BELOW)}
    found = Checkpoints(by_content(session.repo, others), session.manifest_or_none).manifests
    return [manifest for manifest in found.values() if manifest.store in stores]


def _distinct(session: Session, found: dict[str, Manifest]) -> dict[str, Manifest]:
    """Return path -> manifest with a new store, for manifests that differ but name the same store."""
    owner: dict[str, str] = {}
    at_head = session.head
    renamed: dict[str, Manifest] = {}
    order = sorted(found, key=lambda path: (path not in at_head, path))
    for path in order:
        manifest = found[path]
        first = owner.setdefault(manifest.store.lower(), path)
        if first != path and not (found[first].store == manifest.store and _agree(found[first], manifest)):
            taken = {m.store for m in found.values()} | {m.store for m in renamed.values()}
            renamed[path] = manifest.with_store(store_name(path, taken))
    return renamed


def _agree(one: Manifest, other: Manifest) -> bool:
    return closure.places(one) == closure.places(other)


def _stat_if_same(session: Session, path: str, old: str, new: str) -> os.stat_result | None:
    """Return the stat data for an entry whose manifest changes from ``old`` to ``new`` but not in value."""
    info = worktree.known_stat(session, path, old)
    if info is not None:
        session.cache.remember(path, Identity.of(info), new)
    return info


# -- commits -------------------------------------------------------------------------------


def checkpoints(session: Session, tree: Tree) -> Checkpoints:
    """Return the checkpoints of ``tree``.

    An untracked manifest counts too if ``.theta/`` has its store: deleting a line of ``.gitattributes``
    must not delete the tensors.
    """
    listed = session.of_tree(tree)
    extra = {entry.name for entry in _stores(tree) or ()} - listed.by_store.keys()
    if not extra:
        return listed
    files = {path: entry.id for path, entry in session.repo.walk_blobs(tree) if path not in listed}
    others = Checkpoints(by_content(session.repo, files), session.manifest_or_none)
    foreign = {path for path, manifest in others.manifests.items() if manifest.store not in extra}
    more = (one for path, one in others.items() if path not in foreign)
    return Checkpoints([*listed.values(), *more], session.manifest_or_none)


def _stores(tree: Tree) -> Tree | None:
    """Return ``.theta`` in ``tree``, if it is a folder there."""
    entry = tree.get(STORES)
    return entry.tree if entry is not None else None


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
    stores = checkpoints(session, tree).by_store.keys()
    kept = [(one.name, one.mode, one.id) for one in _stores(tree) or () if one.name in stores]
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
