"""Putting checkpoints into the index: store what is new, stage manifest and ``.theta/``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pygit2

from theta.errors import ManifestError
from theta.git import lfs
from theta.git.index import Entry, IndexEdit, Staged
from theta.git.repository import STORES
from theta.porcelain import sparse, worktree
from theta.porcelain.session import Session
from theta.porcelain.trees import by_content
from theta.progress import Progress, begin
from theta.store import closure, snapshot, staging
from theta.store.manifest import Manifest, blob_id
from theta.store.names import store_of
from theta.store.packs import PackWriter
from theta.store.snapshot import Snapshot, Stored
from theta.store.source import FileSource, Identity

_FILES: Final = (0o100644, 0o100755)
_BELOW: Final = f"{STORES}/"


@dataclass(frozen=True)
class Added:
    """A checkpoint that was staged: what is new in it and what that cost."""

    path: str
    manifest: Manifest
    oid: str
    new: tuple[str, ...]
    note: str
    stat: os.stat_result
    mode: int
    stored: int = 0
    warning: str = ""
    newcomer: bool = False
    """Whether nobody named the file: a tracked pattern matches it."""


def add_files(session: Session, paths: Iterable[str], progress: Progress | None = None) -> list[Added]:
    """Store and stage the checkpoint files at ``paths`` (from the root of the worktree).

    Nothing is staged unless all of them could be read; an unchanged file is only refreshed.
    """
    staged = session.staged()
    added: list[Added] = []
    with session.objects.writing() as pack:
        for path in paths:
            added.append(_store(session, pack, path, staged, added, progress))
    _stage(session, added)
    return added


def _store(
    session: Session,
    pack: PackWriter,
    path: str,
    staged: dict[str, Entry],
    before: list[Added],
    progress: Progress | None,
) -> Added:
    entry = staged.get(path)
    kept = session.manifest_or_none(entry.oid) if entry else None
    size = pack.size
    with FileSource(session.repo.worktree / path, path) as source:
        mode = 0o100755 if source.stat.st_mode & 0o100 else 0o100644
        if (
            entry
            and kept
            and session.cache.manifest_of(path, source.identity) == entry.oid
            and complete(session, kept)
        ):
            return Added(path, kept, entry.oid, (), "", source.stat, mode)
        text = worktree.peek(source.path)
        if text is not None:
            raise ManifestError(
                f"{path} holds a manifest in place of the checkpoint", hint=f"theta restore {path}"
            )
        taken = {m.store for p, m in known_stores(session, staged).items() if p != path} | {
            a.manifest.store for a in before
        }
        stored = take(session, pack, source, path, kept, taken, progress)
        source.verify_unchanged()
        oid = pack.blob(stored.manifest.data, text=True)
        session.cache.remember(path, source.identity, oid)
        return Added(
            path, stored.manifest, oid, tuple(stored.new), stored.note, source.stat, mode, pack.size - size
        )


def take(
    session: Session,
    pack: PackWriter,
    source: FileSource,
    path: str,
    kept: Manifest | None,
    taken: set[str],
    progress: Progress | None = None,
) -> Stored:
    """Scan and store one file; its store is that of ``kept``, or a name not in ``taken``."""
    if lfs.pointer_in(source) is not None:
        raise lfs.refusal(path)
    bases = session.bases(path)
    reference = kept or (bases[0] if bases else None)
    skeleton = worktree.skeleton_of(session, reference)
    begin(progress, "hashing", source.size, path)
    found = snapshot.scan(source, reference, skeleton, progress)
    if (
        kept is not None
        and kept.store not in taken
        and found.equals(kept, skeleton)
        and complete(session, kept)
    ):
        return Stored(kept)
    if kept is None and (moved := _moved(session, found)) is not None:
        return Stored(moved)
    store = kept.store if kept and kept.store not in taken else store_name(path, taken)
    return Snapshot(session.objects, pack, bases).store(source, found, store, kept, progress)


def _moved(session: Session, found: snapshot.Scan) -> Manifest | None:
    """The manifest of a checkpoint of this value whose file is gone: it was renamed, its store stays."""
    for path, manifest in known_stores(session, session.staged()).items():
        if not os.path.lexists(session.repo.worktree / path):
            kept = worktree.skeleton_of(session, manifest)
            if found.equals(manifest, kept) and complete(session, manifest):
                return manifest
    return None


def complete(session: Session, manifest: Manifest) -> bool:
    """Whether the trees that ``manifest`` names are in the repository."""
    return session.repo.has(manifest.skeleton) and all(session.repo.has(line.tree) for line in manifest.lines)


def known_stores(session: Session, staged: dict[str, Entry]) -> dict[str, Manifest]:
    """Path -> manifest, of all checkpoints in the index."""
    found = {path: session.manifest_or_none(entry.oid) for path, entry in staged.items()}
    return {path: manifest for path, manifest in found.items() if manifest is not None}


def store_name(path: str, taken: set[str]) -> str:
    """The name of the store of a new checkpoint: its path, made one part, and not in ``taken``."""
    base = store_of(path)
    name, number = base, 2
    while name.lower() in {other.lower() for other in taken}:
        name, number = f"{base}~{number}", number + 1
    return name


def _stage(session: Session, added: list[Added]) -> None:
    with session.index_edit() as edit:
        for item in added:
            edit.put(Staged(item.path, item.oid, item.mode, stat=item.stat))
    sync(session)
    session.cache.save()


def sync(session: Session, index: Path | None = None) -> list[str]:
    """Make ``.theta/`` in the index the closure of the manifests that are staged.

    A manifest whose store another one uses gets a store of its own; of a checkpoint in conflict
    one side is kept (ours, if there is one).  Answers the paths of tracked files that are staged
    as raw bytes.
    """
    everything = session.entries(index)
    entries = {entry.path: entry for entry in everything if entry.stage == 0}
    found = known_stores(session, entries)
    sides = {e.path: e for stage in (1, 3, 2) for e in everything if e.stage == stage}
    raw = [path for path in entries if path not in found]
    if found:
        sparse.require(session.repo)
    renamed = _distinct(session, found)
    with session.index_edit(index) as edit:
        for path, manifest in renamed.items():
            oid = session.repo.write_blob(manifest.data)
            edit.put(
                Staged(
                    path, oid, entries[path].mode, stat=_stat_if_same(session, path, entries[path].oid, oid)
                )
            )
            found[path] = manifest
        kept = [*found.values(), *known_stores(session, sides).values()]
        kept += _without_attribute(session, edit, kept, {entry.path for entry in everything})
        closure.sync_index(edit, session.objects, kept)
    staging.adopt(session.repo, {blob_id(manifest.data) for manifest in found.values()})
    return raw


def _without_attribute(
    session: Session, edit: IndexEdit, kept: list[Manifest], listed: set[str]
) -> list[Manifest]:
    """The manifests of stores in the index that no tracked path has any more.

    A line of ``.gitattributes`` that is gone must not take the tensors with it.
    """
    stores = {path.split("/")[1] for path in edit.paths_under(STORES)} - {m.store for m in kept}
    if not stores:
        return []
    files = {e.path: e.oid for e in edit.entries() if e.stage == 0 and e.mode in _FILES}
    others = {path: oid for path, oid in files.items() if path not in listed and not path.startswith(_BELOW)}
    found = (session.manifest_or_none(oid) for oid in by_content(session.repo, others).values())
    return [manifest for manifest in found if manifest is not None and manifest.store in stores]


def new_raw(session: Session, raw: Iterable[str], index: Path | None = None) -> dict[str, str]:
    """Path -> blob id, of those staged ``raw`` files that are not so in HEAD already."""
    head = session.repo.head()
    tree = session.repo.tree_of(head) if head else None
    staged = session.staged(index)
    old = {path: session.repo.entry(tree, path) if tree is not None else None for path in raw}
    return {
        path: staged[path].oid
        for path, entry in old.items()
        if entry is None or str(entry.id) != staged[path].oid
    }


def refuse_pointers(session: Session, raw: dict[str, str]) -> None:
    """Raise :class:`PointerError` where a blob of ``raw`` (path -> id) is a pointer of Git LFS."""
    for path, oid in raw.items():
        if lfs.is_pointer(session.objects.text(oid, lfs.MAX_BYTES) if _is_small(session, oid) else b""):
            raise lfs.refusal(path)


def _is_small(session: Session, oid: str) -> bool:
    blob = session.repo.find(oid)
    return isinstance(blob, pygit2.Blob) and blob.size < lfs.MAX_BYTES


def _distinct(session: Session, found: dict[str, Manifest]) -> dict[str, Manifest]:
    """The manifests that must take another store, since two different ones name the same."""
    owner: dict[str, str] = {}
    at_head = session.in_tree("HEAD") if session.repo.head() else {}
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
    """The stat data for an entry whose manifest changes from ``old`` to ``new`` but not in value."""
    info = worktree.known_stat(session, path, old)
    if info is not None:
        session.cache.remember(path, Identity.of(info), new)
    return info
