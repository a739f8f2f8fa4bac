"""The tree of a commit that replaces some files of another one, written without an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

from theta.errors import UsageError
from theta.formats.layout import Source
from theta.git.object_values import MODE_BLOB, MODE_TREE, Tree
from theta.git.repository import ATTRIBUTES, STORES
from theta.porcelain.setup import attribute_lines
from theta.porcelain.setup.installing import STORE_ATTRIBUTES
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.checkpoints import EMPTY
from theta.porcelain.workspace.closures import store_name
from theta.porcelain.workspace.session import Session
from theta.store import closure
from theta.store.files import file_scan
from theta.store.format.manifest import Manifest
from theta.store.odb.packs import PackWriter
from theta.store.write import snapshot

Replaced: TypeAlias = "dict[str, str | Replaced | None]"
"""Name -> id of the blob in its place, None for none, or what is replaced in this directory."""


@dataclass(frozen=True)
class StoredFile:
    """A checkpoint whose objects were stored by themselves: the id of its manifest; it can be pickled."""

    manifest: str


File: TypeAlias = Source | bytes | StoredFile
"""The content for a path of a tree: a checkpoint, or the bytes of any other file."""


@dataclass(frozen=True)
class SavedTree:
    """A tree that was written, and the tensors that were stored for it: path -> names."""

    tree: str
    new: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def write(
    session: Session,
    pack: PackWriter,
    parent: str | None,
    files: Mapping[str, File],
    *,
    whole: bool = False,
) -> SavedTree:
    """Write the tree of commit ``parent`` with ``files`` in place of its own; if ``whole``, of them alone.

    Checkpoints become manifests, stored relative to those of ``parent``; bytes become blobs.
    """
    before = session.at(parent) if parent else EMPTY
    tree = session.repo.tree_of(parent) if parent and not whole else None
    manifests = {} if whole else dict(before.manifests)
    new: dict[str, tuple[str, ...]] = {}
    blobs: dict[str, str] = {}
    for path, file in files.items():
        check(path)
        if isinstance(file, bytes):
            manifests.pop(path, None)
            blobs[path] = pack.blob(file, text=True)
            continue
        taken = _taken(path, manifests, before.manifests)
        if isinstance(file, StoredFile):
            manifests[path], new[path] = _with_own_store(path, session.manifest(file.manifest), taken), ()
        else:
            stored = _stored(session, pack, path, file, taken, before.manifests)
            manifests[path], new[path] = stored.manifest, tuple(stored.new)
        blobs[path] = pack.blob(manifests[path].data, text=True)
    text = _attributes(session, tree, [path for path in new if whole or path not in before.manifests])
    if text and ATTRIBUTES not in files:
        blobs[ATTRIBUTES] = pack.blob(text, text=True)
    stores = closure.stores_tree(pack, manifests.values())
    return SavedTree(_with(pack, tree, _nested(blobs), {STORES: stores}), new)


def store(
    session: Session, pack: PackWriter, parent: str | None, path: str, file: Source
) -> tuple[StoredFile, str]:
    """Store a checkpoint that a commit on top of ``parent`` will have at ``path``.

    Return it, and a tree that names its manifest and store, which no commit names yet.
    """
    check(path)
    bases = session.at(parent).manifests if parent else {}
    stored = _stored(session, pack, path, file, _taken(path, {}, bases), bases)
    oid = pack.blob(stored.manifest.data, text=True)
    trees = closure.store_tree(pack, stored.manifest)
    return StoredFile(oid), pack.tree([("manifest", MODE_BLOB, oid), ("store", MODE_TREE, trees)])


def overlay(session: Session, pack: PackWriter, parent: str | None, commit: str) -> str:
    """Write the tree of commit ``parent`` with all files of ``commit`` in place of its own; return its id.

    A checkpoint whose store another file of ``parent`` has gets a store of its own.
    """
    tree = session.repo.tree_of(parent) if parent else None
    coming = session.at(commit).manifests
    files = {path: entry.id for path, entry in session.repo.walk_blobs(session.repo.tree_of(commit))}
    kept = dict(session.at(parent).manifests) if parent else {}
    manifests = {path: manifest for path, manifest in kept.items() if path not in files}
    for path, manifest in coming.items():
        manifests[path] = _with_own_store(path, manifest, {other.store for other in manifests.values()})
        files[path] = pack.blob(manifests[path].data, text=True)
    text = _attributes(session, tree, [path for path in coming if path not in kept])
    files.pop(ATTRIBUTES, None)
    if text:
        files[ATTRIBUTES] = pack.blob(text, text=True)
    return _with(pack, tree, _nested(files), {STORES: closure.stores_tree(pack, manifests.values())})


def edited(pack: PackWriter, tree: Tree, blobs: Mapping[str, str | None], stores: str | None) -> str:
    """Write ``tree`` with ``blobs`` (path -> blob, None for no file) and ``.theta/``; return its id.

    Raises :class:`UsageError` for a path that may not be written.
    """
    for path in blobs:
        check(path)
    return _with(pack, tree, _nested(blobs), {STORES: stores})


def check(path: str) -> None:
    """Raise :class:`UsageError` unless ``path`` may be a file of a worktree."""
    parts = path.split("/")
    if not all(parts) or not {".", "..", ".git", STORES}.isdisjoint(map(str.lower, parts)) or "\0" in path:
        raise UsageError(f"a file cannot be saved as {path!r}", hint="name a path from the root")


def _stored(
    session: Session,
    pack: PackWriter,
    path: str,
    file: Source,
    taken: set[str],
    bases: Mapping[str, Manifest],
) -> snapshot.Stored:
    """Store one checkpoint, relative to that of its path first, then to all others of the parent."""
    kept = bases.get(path)
    others = [manifest for at, manifest in bases.items() if at != path]
    found = file_scan.take_apart(file, kept, worktree.skeleton_of(session, kept))
    place = kept.store if kept else store_name(path, taken)
    writer = snapshot.Snapshot(session.objects, pack, [*([kept] if kept else []), *others])
    return writer.store(file, found, place, kept)


def _taken(path: str, *of: Mapping[str, Manifest]) -> set[str]:
    """Return the stores of all other paths."""
    return {manifest.store for found in of for at, manifest in found.items() if at != path}


def _with_own_store(path: str, manifest: Manifest, taken: set[str]) -> Manifest:
    return manifest if manifest.store not in taken else manifest.with_store(store_name(path, taken))


def _attributes(session: Session, tree: Tree | None, new: list[str]) -> bytes:
    """Return the ``.gitattributes`` that also track the paths ``new``; empty when those of ``tree`` do."""
    entry = tree.get(ATTRIBUTES) if tree is not None else None
    old = attribute_lines.of_file(session.repo.read_blob(entry.id)) if entry is not None else []
    lines = [line for line in old if line.text != STORE_ATTRIBUTES]
    count = len(lines)
    for path in new:
        if not any(line.is_tracked and _covers(line.pattern, path) for line in lines):
            lines = attribute_lines.with_tracked(lines, "/" + attribute_lines.literal(path))
    if not new or (entry is not None and len(lines) == count):
        return b""
    text = "".join(line.text + "\n" for line in lines) + STORE_ATTRIBUTES + "\n"
    return text.encode("utf-8", "surrogateescape")


def _covers(pattern: str, path: str) -> bool:
    """Return whether ``pattern`` surely matches ``path``: a glob on names, or the path itself."""
    if pattern == "/" + attribute_lines.literal(path):
        return True
    return "/" not in pattern and "\\" not in pattern and fnmatchcase(path.rpartition("/")[2], pattern)


def _nested(blobs: Mapping[str, str | None]) -> Replaced:
    root: Replaced = {}
    for path, oid in blobs.items():
        *folders, name = path.split("/")
        node = root
        for folder in folders:
            inner = node.setdefault(folder, {})
            if not isinstance(inner, dict):
                raise UsageError(f"{path} is in a folder that is a file too")
            node = inner
        if name in node:
            raise UsageError(f"{path} is a folder too")
        node[name] = oid
    return root


def _with(
    pack: PackWriter,
    tree: Tree | None,
    replaced: Replaced,
    stores: Mapping[str, str | None],
    prefix: str = "",
) -> str:
    """Write ``tree`` with what is ``replaced`` in it and its directories ``stores``; ``prefix`` is its path.

    Raises :class:`UsageError` for a file in the place of a directory, and the other way round.
    """
    rows = {entry.name: (entry.mode, entry.id) for entry in tree or ()}
    for name, value in replaced.items():
        old = tree.get(name) if tree is not None else None
        if value is None:
            rows.pop(name, None)
            continue
        if old is not None and isinstance(value, str) == (old.mode == MODE_TREE):
            there, new = ("folder", "file") if isinstance(value, str) else ("file", "folder")
            raise UsageError(f"{prefix}{name} is a {there} there; it cannot become a {new}")
        if isinstance(value, str):
            mode = old.mode if old is not None and old.is_file else MODE_BLOB
            rows[name] = (mode, value)
        else:
            rows[name] = (
                MODE_TREE,
                _with(pack, old.tree if old is not None else None, value, {}, f"{prefix}{name}/"),
            )
    for name, directory in stores.items():
        rows.pop(name, None)
        if directory is not None:
            rows[name] = (MODE_TREE, directory)
    return pack.tree((name, mode, oid) for name, (mode, oid) in rows.items())
