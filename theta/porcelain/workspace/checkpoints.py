"""Checkpoints in the trees of commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from theta.git.attributes import only_tracked
from theta.git.object_values import MODE_BLOB, Tree
from theta.git.repository import STORES, Repository
from theta.store.format.manifest import MAX_BYTES, looks_like_manifest

_cache: dict[tuple[str, str], dict[str, str]] = {}


def checkpoints(repo: Repository, tree: Tree) -> dict[str, str]:
    """Path -> blob id of each file of ``tree`` that theta tracks and that is a manifest.

    git reads attributes from the worktree; where ``tree`` has others, content decides.
    """
    key = (str(repo.gitdir), tree.id)
    if key not in _cache:
        files = _candidates(repo, tree)
        repo.promised.expect(files.values())
        _cache[key] = {path: files[path] for path in sorted(files) if is_manifest(repo, files[path])}
    return _cache[key]


def by_content(repo: Repository, files: Mapping[str, str]) -> dict[str, str]:
    """Those of ``files`` (path -> blob id) that are manifests, whatever attributes say."""
    repo.promised.obtain(files.values())
    ask = "".join(f"{oid}\n" for oid in files.values()).encode()
    rows = (
        repo.git().run("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=ask).text.splitlines()
    )
    small = {oid for oid, size in map(str.split, rows) if size.isdigit() and int(size) <= MAX_BYTES}
    return {path: oid for path, oid in files.items() if oid in small and is_manifest(repo, oid)}


def expect(repo: Repository, revisions: Iterable[str]) -> None:
    """The checkpoints of ``revisions`` are going to be asked for: a partial clone fetches them together."""
    if not repo.promised.is_partial:
        return
    commits = [oid for revision in revisions if (oid := repo.commit_of(revision)) is not None]
    repo.promised.expect(repo.commit(oid).tree for oid in commits)
    for tree in dict.fromkeys(map(repo.tree_of, commits)):
        repo.promised.expect(_candidates(repo, tree).values())


def _candidates(repo: Repository, tree: Tree) -> dict[str, str]:
    """Path -> blob id of the files of ``tree`` that may be checkpoints."""
    files = {path: entry.id for path, entry in repo.walk_blobs(tree) if entry.mode & MODE_BLOB}
    own = {path: oid for path, oid in files.items() if path.rpartition("/")[2] == ".gitattributes"}
    known = not repo.is_bare and own == repo.attribute_files()
    tracked = only_tracked(repo, files) if known else files
    if repo.promised.is_partial and tree.get(STORES) is None:
        # Nobody who has the stores elsewhere owes this clone a checkpoint of such a tree.
        return {path: files[path] for path in tracked if repo.has(files[path])}
    return {path: files[path] for path in tracked}


def is_manifest(repo: Repository, oid: str) -> bool:
    """Whether blob ``oid`` begins as a manifest does."""
    blob = repo.blob(oid)
    return blob is not None and blob.size <= MAX_BYTES and looks_like_manifest(blob.data)
