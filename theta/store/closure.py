"""``.theta/``: the closure of the manifests.

The manifest is the truth; ``.theta/`` only keeps its objects reachable.  This module computes
what ``.theta/`` must hold, and brings an index or a tree into agreement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from theta.errors import MissingObjectsError
from theta.git.backends.index_entries import Staged
from theta.git.object_format import TREE, ObjectFormat
from theta.git.object_values import MODE_BLOB, MODE_TREE, TreeEntry, tree_bytes
from theta.git.repository import STORES
from theta.lazy import Module
from theta.store.format import listings
from theta.store.format.manifest import Manifest
from theta.store.format.names import tree_path
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

if TYPE_CHECKING:
    from theta.git.backends.protocols import EditedIndex

if TYPE_CHECKING:
    from theta.store.format import skeleton
else:
    skeleton = Module("theta.store.format.skeleton")

SELF: Final = "@self"


def places(manifest: Manifest) -> dict[str, str]:
    """Return directory below the store -> id of the tree that stands there."""
    paths = {tree_path(line.name): line.tree for line in manifest.lines}
    inner = _folders(paths)
    found = {f"{path}/{SELF}" if path in inner else path: tree for path, tree in paths.items()}
    return {skeleton.NAME: manifest.skeleton} | listings.places(manifest) | found


def _folders(paths: Iterable[str]) -> set[str]:
    """Return every folder that one of ``paths`` is in."""
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def expected(manifests: Iterable[Manifest]) -> dict[str, str]:
    """Return directory, from the root of the repository -> tree id, for all of ``manifests``."""
    found: dict[str, str] = {}
    for manifest in manifests:
        for directory, tree in places(manifest).items():
            found[f"{STORES}/{manifest.store}/{directory}"] = tree
    return found


def sync_index(
    edit: EditedIndex, objects: Objects, manifests: Iterable[Manifest], held: Mapping[str, tuple[str, bool]]
) -> list[str]:
    """Make ``.theta/`` in the index, which is ``held`` now, the closure of ``manifests``.

    Returns the directories whose objects are missing here; those are left as they are.
    """
    edit.remove_conflicts_under(STORES)
    wanted = expected(manifests)
    current = _grouped(held)
    objects.repo.promised.expect(wanted.values())
    missing = []
    for directory, tree in wanted.items():
        files = current.pop(directory, {})
        if not (_tree_id(files, objects.repo.format) == tree and all(skip for _, skip in files.values())):
            try:
                _replace(edit, objects, directory, tree, files)
            except MissingObjectsError:
                missing.append(directory)
    for directory, files in current.items():
        for name in files:
            edit.remove(f"{directory}/{name}")
    return missing


def put_back(
    edit: EditedIndex, committed: Mapping[str, TreeEntry], held: Mapping[str, tuple[str, bool]]
) -> None:
    """Make ``.theta/`` in the index, which is ``held`` now, that of a commit: path -> entry in its tree."""
    edit.remove_conflicts_under(STORES)
    for path in held.keys() - committed.keys():
        edit.remove(path)
    for path, entry in committed.items():
        if held.get(path) != (entry.id, True) or entry.mode != MODE_BLOB:
            edit.put(Staged(path, entry.id, entry.mode, skip=True))


def wrong(
    held: Mapping[str, tuple[str, bool]], manifests: Iterable[Manifest], form: ObjectFormat
) -> list[str]:
    """Return the directories of ``manifests`` that an index with ``held`` lacks or has otherwise."""
    current = _grouped(held)
    return [
        directory
        for directory, tree in expected(manifests).items()
        if _tree_id(current.get(directory, {}), form) != tree
    ]


def _replace(
    edit: EditedIndex, objects: Objects, directory: str, tree: str, old: Mapping[str, tuple[str, bool]]
) -> None:
    new = objects.files(tree)
    for name in old.keys() - new.keys():
        edit.remove(f"{directory}/{name}")
    for name, oid in new.items():
        edit.put(Staged(f"{directory}/{name}", oid, MODE_BLOB, skip=True))


def _grouped(paths: Mapping[str, tuple[str, bool]]) -> dict[str, dict[str, tuple[str, bool]]]:
    grouped: dict[str, dict[str, tuple[str, bool]]] = {}
    for path, value in paths.items():
        directory, _, name = path.rpartition("/")
        grouped.setdefault(directory, {})[name] = value
    return grouped


def _tree_id(files: Mapping[str, tuple[str, bool]], form: ObjectFormat) -> str:
    body = tree_bytes((name, MODE_BLOB, oid) for name, (oid, _) in files.items())
    return form.object_id(TREE, (body,), len(body)).hex()


def stores_tree(pack: PackWriter, manifests: Iterable[Manifest]) -> str | None:
    """Write the tree ``.theta`` of a commit with ``manifests``; None when there are none."""
    wanted = expected(manifests)
    return _write_nested(pack, _nested(wanted))[STORES] if wanted else None


def store_tree(pack: PackWriter, manifest: Manifest) -> str:
    """Write the tree of one store."""
    return _write_nested(pack, _nested(expected([manifest])))[STORES]


def _nested(wanted: Mapping[str, str]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for directory, tree in wanted.items():
        *parents, last = directory.split("/")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = tree
    return root


def _write_nested(pack: PackWriter, node: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in node.items():
        if not isinstance(value, str):
            children = _write_nested(pack, value)
            value = pack.tree((child, MODE_TREE, oid) for child, oid in children.items())
        found[name] = value
    return found
