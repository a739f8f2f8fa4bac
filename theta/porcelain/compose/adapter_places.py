"""The adapters that a recipe names: ``REVISION``, ``REVISION:FOLDER``, or a folder beside the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from theta.errors import NotFoundError, UsageError
from theta.formats.layout import BytesSource, Source
from theta.git.object_values import Tree, TreeEntry
from theta.merging.adapters import scales
from theta.porcelain.stage.adapters import WEIGHTS
from theta.porcelain.workspace.session import Session
from theta.store.read.random_access import StoredSource

_MOST_WEIGHTS: Final = 1 << 28
"""Bytes of weights that are a plain file of git, which is read as a whole."""
_SOME: Final = 3


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter in a commit.

    Attributes:
        label: the name of its folder in the commit.
        config: the bytes of its configuration.
        weights: the file of its weights.
        trees: tree -> bytes, of the tensors that are stored for these.
        nbytes: the size of the weights.
    """

    label: str
    config: bytes
    weights: Source
    trees: dict[str, int]
    nbytes: int


def located(session: Session, name: str, beside: str) -> str | None:
    """Return ``COMMIT:FOLDER`` of the adapter ``name``; None when nothing is there.

    ``name`` is a revision with or without a folder, or else a folder of the commit ``beside``.
    Raises :class:`UsageError` for a commit that has several.
    """
    revision, _, path = name.partition(":")
    commit = session.repo.commit_of(revision)
    if commit is None:
        commit, path = beside, name
        if ":" in name or not name.strip("/"):
            return None
    folder = _folder(session, commit, path.strip("/"), name)
    return None if folder is None else f"{commit}:{folder}"


def _folder(session: Session, commit: str, path: str, name: str) -> str | None:
    """Return the one folder at or below ``path`` that has an adapter; "" for the root."""
    tree = session.repo.tree_of(commit)
    entry = tree.get(path) if path else None
    if path and entry is None:
        return None
    if entry is not None and entry.is_file:
        path = path.rpartition("/")[0]
        return path if _file(tree, path, scales.CONFIG) is not None else None
    if _file(tree, path, scales.CONFIG) is not None:
        return path
    below = f"{path}/" if path else ""
    weights = [one for one in session.at(commit).manifests if one.rpartition("/")[2] in WEIGHTS]
    folders = {one.rpartition("/")[0] for one in weights if one.startswith(below)}
    found = sorted(one for one in folders if _file(tree, one, scales.CONFIG) is not None)
    if len(found) > 1:
        some = ", ".join(found[:_SOME])
        raise UsageError(f"{name} has {len(found)} adapters: {some}", hint="name one as REVISION:FOLDER")
    return found[0] if found else None


def _file(tree: Tree, folder: str, name: str) -> TreeEntry | None:
    found = tree.get(f"{folder}/{name}" if folder else name)
    return found if found is not None and found.is_file else None


def opened(session: Session, place: str) -> StoredAdapter:
    """Return the adapter at ``place``, which :func:`located` returned.

    Raises :class:`NotFoundError` if it lacks a file.
    """
    commit, _, folder = place.partition(":")
    tree, label = session.repo.tree_of(commit), folder or "the root folder"
    config = _file(tree, folder, scales.CONFIG)
    if config is None:
        raise NotFoundError(f"{label} of {commit[:12]} has no {scales.CONFIG}")
    data = session.objects.text(config.id, scales.MOST_CONFIG)
    manifests = session.at(commit).manifests
    for name in WEIGHTS:
        manifest = manifests.get(f"{folder}/{name}" if folder else name)
        if manifest is not None:
            source = StoredSource(session.objects, manifest)
            return StoredAdapter(label, data, source, manifest.trees(), source.size)
        if (entry := _file(tree, folder, name)) is not None:
            plain = BytesSource(session.objects.text(entry.id, _MOST_WEIGHTS))
            return StoredAdapter(label, data, plain, {}, plain.size)
    raise NotFoundError(f"{label} of {commit[:12]} has no {' or '.join(WEIGHTS)}")
