"""Staging checkpoints: store new tensors, put the manifest and ``.theta/`` into the index."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from theta.errors import FormatError
from theta.formats import opaque
from theta.git import lfs
from theta.git.backends.index_entries import Staged
from theta.lazy import Module
from theta.porcelain.workspace import unsettled, worktree
from theta.porcelain.workspace.closures import complete, following, store_name, sync
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store import closure
from theta.store.changes import counted
from theta.store.files.file_scan import loses_tensors
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Manifest
from theta.store.odb.packs import PackWriter
from theta.units import human

if TYPE_CHECKING:
    from theta.engine import spreading
    from theta.store.files import file_scan
    from theta.store.files.one_reading import Digested
    from theta.store.format import tensor_tree
    from theta.store.format.skeleton import Skeleton
    from theta.store.write import snapshot
    from theta.store.write.snapshot import Stored
else:
    spreading = Module("theta.engine.spreading")
    file_scan = Module("theta.store.files.file_scan")
    snapshot = Module("theta.store.write.snapshot")
    tensor_tree = Module("theta.store.format.tensor_tree")


@dataclass(frozen=True)
class Added:
    """A checkpoint that was staged.

    Attributes:
        path: path of the file.
        manifest: the manifest that was staged.
        oid: its blob id.
        new: names of the tensors that were stored.
        note: why the file was stored as plain bytes, or "".
        stat: stat of the file that was read.
        mode: git's file mode.
        stored: bytes that were written to the pack.
        warning: a warning for the user, or "".
        newcomer: no pathspec names the file; a tracked pattern matches it.
        changed: the index had another version, or none.
    """

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
    changed: bool = False

    def summary(self) -> str:
        """Return in words what is new; a file of plain bytes has no tensors."""
        size = human(self.stat.st_size)
        if self.manifest.format == opaque.NAME:
            return f"{'' if self.note else 'no reader knows this file, '}stored as plain bytes ({size})"
        new = f"{len(self.new)} of {counted(len(self.manifest.lines), 'tensor')} new"
        return f"{new}, {human(self.stored)} stored ({size} in the file)"


def add_files(
    session: Session, paths: Collection[str], progress: Progress | None = None, *, damaged: bool = False
) -> list[Added]:
    """Store and stage the checkpoint files at ``paths`` (from the root of the worktree).

    Nothing is staged unless all files can be read.  For an unchanged file only the stat is refreshed.
    Raises :class:`FormatError` for a file that was a checkpoint and that its reader now refuses, unless
    ``damaged`` files are to be stored as plain bytes.
    """
    added: list[Added] = []
    if not paths:
        sync(session)
        return added
    with following(session) as change:
        for path in paths:
            added.append(_store(session, change.pack, path, added, progress))
            if not damaged:
                _refuse_damaged(session, added[-1])
        for item in added:
            change.index.put(Staged(item.path, item.oid, item.mode, stat=item.stat))
    session.cache.save()
    return added


def _store(
    session: Session, pack: PackWriter, path: str, before: list[Added], progress: Progress | None
) -> Added:
    staged = session.index
    kept, oid, size = staged.manifest(path), staged.oid(path), pack.size
    with FileSource(session.repo.worktree / path, path) as source:
        mode = 0o100755 if source.stat.st_mode & 0o100 else 0o100644
        known = session.cache.manifest_of(path, source.identity) == oid
        if kept and oid and known and complete(session, kept):
            return Added(path, kept, oid, (), "", source.stat, mode)
        text = worktree.peek(source.path)
        if kept and oid and text == kept.data and session.leaves(path):
            return Added(path, kept, oid, (), "", source.stat, mode)
        if text is not None:
            raise unsettled.of_text(session, path, text)
        taken = {manifest.store for at, manifest in staged.manifests.items() if at != path}
        taken |= {item.manifest.store for item in before}
        stored = take(session, pack, source, path, kept, taken, progress)
        in_conflict = not kept and path in staged.stages
        dropped = unsettled.check(session, path, stored.manifest) if in_conflict else ""
        source.verify_unchanged()
        before_oid, oid = oid, pack.blob(stored.manifest.data, text=True)
        session.remember(oid, stored.manifest)
        closure.store_tree(pack, stored.manifest)  # git commit would write each folder as a loose object
        session.cache.remember(path, source.identity, oid)
        return Added(
            path,
            stored.manifest,
            oid,
            tuple(stored.new),
            stored.note,
            source.stat,
            mode,
            pack.size - size + stored.elsewhere,
            dropped,
            changed=oid != before_oid,
        )


def _refuse_damaged(session: Session, item: Added) -> None:
    """Raise :class:`FormatError` if the file is none that its reader takes, and a staged version is."""
    staged = session.index.stages.get(item.path, {}).values()
    versions = filter(None, (session.manifest_or_none(one.oid) for one in staged if item.note))
    if any(loses_tensors(version.format, item.manifest.format) for version in versions):
        word = session.word(item.path)
        raise FormatError(
            f"{session.place(item.path)} is no checkpoint any more: {item.note}",
            hint=f"'theta restore {word}' brings it back, 'theta add --force {word}' takes plain bytes",
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
    """Scan and store one file, in the store of ``kept`` or in a new one whose name is not in ``taken``."""
    if lfs.pointer_in(source) is not None:
        raise lfs.refusal(path)
    bases = bases_of(session, path)
    reference = kept or (bases[0] if bases else None)
    skeleton = worktree.skeleton_of(session, reference)
    store = kept.store if kept and kept.store not in taken else store_name(path, taken)
    found = _taken_apart(session, source, path, reference, skeleton, progress)
    writer = snapshot.Snapshot(session.objects, pack, bases, digested(session, kept))
    elsewhere = None
    if (engine := session.engine(source.size)) is not None:
        elsewhere = spreading.Spread.of(engine, session.objects, source, store, kept, bases)
    made = writer.tensors(source, found, store, kept, progress, elsewhere=elsewhere)
    digests = {line.name: line.digest for line in made.lines}
    if (
        kept is not None
        and kept.store not in taken
        and file_scan.describes(kept, skeleton, found, digests)
        and complete(session, kept)
    ):
        return snapshot.Stored(kept)
    if kept is None and (moved := _moved(session, found, digests)) is not None:
        return snapshot.Stored(moved)
    return writer.conclude(found, store, made)


def digested(session: Session, kept: Manifest | None) -> Digested:
    """Return what takes the digests of a file: of one that was added before, chunks may be known."""
    if session.known is None or kept is None:
        return tensor_tree.Chunk.of_each
    return session.known.chunks


def _taken_apart(
    session: Session,
    source: FileSource,
    path: str,
    reference: Manifest | None,
    skeleton: Skeleton | None,
    progress: Progress | None,
) -> file_scan.Parts:
    """Take ``source`` apart; in a partial clone hash it, and fetch at once the bases of what changed."""
    begin(progress, "hashing", source.size, path)
    ahead = session.ahead.get(path)
    if ahead is not None and reference is not None and ahead.fits(source, reference):
        snapshot.prepare()
        return ahead.end()
    if session.objects.repo.promised.is_partial:
        return file_scan.scan(source, reference, skeleton, progress)
    return file_scan.take_apart(source, reference, skeleton, progress)


def bases_of(session: Session, path: str) -> list[Manifest]:
    """Return the manifests of the parents of the next commit, those at ``path`` first."""
    parents = [session.at(parent).manifests for parent in session.repo.parents_ahead()]
    first = [found[path] for found in parents if path in found]
    return first + [manifest for found in parents for at, manifest in found.items() if at != path]


def _moved(session: Session, found: file_scan.Parts, digests: Mapping[str, str]) -> Manifest | None:
    """Return the manifest of a deleted file with this content: it was renamed and keeps its store."""
    for path, manifest in session.index.manifests.items():
        if not os.path.lexists(session.repo.worktree / path):
            kept = worktree.skeleton_of(session, manifest)
            if file_scan.describes(manifest, kept, found, digests) and complete(session, manifest):
                return manifest
    return None


def new_raw(session: Session, raw: Iterable[str], index: Path | None = None) -> dict[str, str]:
    """Return path -> blob id of the staged ``raw`` files that differ from HEAD."""
    head = session.repo.head()
    tree = session.repo.tree_of(head) if head else None
    staged = session.index_of(index)
    old = {path: tree.get(path) if tree is not None else None for path in raw}
    return {
        path: staged[path].oid for path, entry in old.items() if entry is None or entry.id != staged[path].oid
    }


def refuse_pointers(session: Session, raw: dict[str, str]) -> None:
    """Raise :class:`PointerError` if a blob of ``raw`` (path -> id) is a Git LFS pointer."""
    for path, oid in raw.items():
        if lfs.is_pointer(session.objects.text(oid, lfs.MAX_BYTES) if _is_small(session, oid) else b""):
            place = session.repo.worktree / path
            is_here = place.is_file() and lfs.pointer_at(place) is None
            raise lfs.staged(path) if is_here else lfs.refusal(path)


def _is_small(session: Session, oid: str) -> bool:
    blob = session.repo.blob(oid)
    return blob is not None and blob.size < lfs.MAX_BYTES
