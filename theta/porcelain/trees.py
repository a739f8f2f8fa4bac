"""Checkpoints in the trees of commits."""

from __future__ import annotations

from collections.abc import Mapping

import pygit2

from theta.git.attributes import only_tracked
from theta.git.repository import MODE_BLOB, Repository
from theta.store.manifest import MAX_BYTES, looks_like_manifest

_cache: dict[tuple[str, str], dict[str, str]] = {}


def checkpoints(repo: Repository, tree: pygit2.Tree) -> dict[str, str]:
    """Path -> blob id of each file of ``tree`` that theta tracks and that is a manifest.

    git reads attributes from the worktree; where ``tree`` has others, content decides.
    """
    key = (str(repo.gitdir), str(tree.id))
    if key not in _cache:
        files = {path: str(entry.id) for path, entry in repo.walk_blobs(tree) if entry.filemode & MODE_BLOB}
        own = {path: oid for path, oid in files.items() if path.rpartition("/")[2] == ".gitattributes"}
        known = not repo.is_bare and own == repo.attribute_files
        tracked = only_tracked(repo, files) if known else files
        _cache[key] = {path: files[path] for path in sorted(tracked) if is_manifest(repo, files[path])}
    return _cache[key]


def by_content(repo: Repository, files: Mapping[str, str]) -> dict[str, str]:
    """Those of ``files`` (path -> blob id) that are manifests, whatever attributes say."""
    ask = "".join(f"{oid}\n" for oid in files.values()).encode()
    rows = (
        repo.git().run("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=ask).text.splitlines()
    )
    small = {oid for oid, size in map(str.split, rows) if size.isdigit() and int(size) <= MAX_BYTES}
    return {path: oid for path, oid in files.items() if oid in small and is_manifest(repo, oid)}


def is_manifest(repo: Repository, oid: str) -> bool:
    """Whether blob ``oid`` begins as a manifest does."""
    blob = repo.raw.get(oid)
    return isinstance(blob, pygit2.Blob) and blob.size <= MAX_BYTES and looks_like_manifest(blob.data)
