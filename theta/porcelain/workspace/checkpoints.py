"""The checkpoints of an index, a tree or the worktree, by path.

``session.index``, ``session.at(revision)`` and ``session.files`` are such mappings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from theta.git.attributes import only_tracked
from theta.git.object_values import MODE_BLOB, Tree, TreeEntry
from theta.git.quoting import split_lines
from theta.git.repository import STORES, Repository
from theta.lazy import Module
from theta.store.format.manifest import MAX_BYTES, Manifest, looks_like_manifest

if TYPE_CHECKING:
    from theta.formats import sharded
else:
    sharded = Module("theta.formats.sharded")


@dataclass(frozen=True)
class Checkpoint:
    """A file that theta tracks.

    Attributes:
        path: from the root of the worktree.
        oid: id of the blob, which is the manifest, or plain bytes that were staged.
        mode: git's file mode.
        stage: 0; in a conflict 1 for the common ancestor, 2 for ours, 3 for theirs.
    """

    path: str
    oid: str
    mode: int = MODE_BLOB
    stage: int = 0


class Checkpoints(Mapping[str, Checkpoint]):
    """An immutable mapping of path -> checkpoint.

    A path in conflict is not a key: its versions are in ``stages``.

    Args:
        found: the checkpoints of all stages.
        read: returns the manifest in a blob; None when the blob is something else.
    """

    def __init__(self, found: Iterable[Checkpoint], read: Callable[[str], Manifest | None]) -> None:
        self._read = read
        stages: dict[str, dict[int, Checkpoint]] = {}
        for one in found:
            stages.setdefault(one.path, {})[one.stage] = one
        self.stages: Mapping[str, Mapping[int, Checkpoint]] = stages
        """Path -> stage -> checkpoint."""
        self._merged = {path: by_stage[0] for path, by_stage in stages.items() if 0 in by_stage}

    def __getitem__(self, path: str) -> Checkpoint:
        return self._merged[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._merged)

    def __len__(self) -> int:
        return len(self._merged)

    @property
    def conflicts(self) -> Mapping[str, Mapping[int, Checkpoint]]:
        """The :attr:`stages` of the paths in conflict."""
        return {path: by_stage for path, by_stage in self.stages.items() if 0 not in by_stage}

    def oid(self, path: str) -> str | None:
        """Return the blob id at ``path``; None when there is no checkpoint."""
        found = self._merged.get(path)
        return found.oid if found is not None else None

    def manifest(self, path: str) -> Manifest | None:
        """Return the manifest at ``path``; None when there is none or it cannot be read."""
        found = self._merged.get(path)
        return self._read(found.oid) if found is not None else None

    @cached_property
    def manifests(self) -> Mapping[str, Manifest]:
        """Path -> manifest of the checkpoints that can be read."""
        found = ((path, self.manifest(path)) for path in self)
        return {path: manifest for path, manifest in found if manifest is not None}

    @cached_property
    def by_store(self) -> Mapping[str, Manifest]:
        """Store -> manifest of the checkpoints that can be read."""
        return {manifest.store: manifest for manifest in self.manifests.values()}

    def of_store(self, store: str) -> str | None:
        """Return the path of a checkpoint with ``store`` that can be read; None without one."""
        return next((path for path, one in self.manifests.items() if one.store == store), None)

    @property
    def readable(self) -> Checkpoints:
        """The checkpoints whose manifests can be read."""
        return Checkpoints((self[path] for path in self.manifests), self._read)

    def models(self) -> Mapping[str, frozenset[str]]:
        """Return the files of each model, by the name that :func:`model_of` gives it."""
        return by_model(self)


def by_model(paths: Iterable[str]) -> dict[str, frozenset[str]]:
    """Group ``paths`` by model, named by :func:`sharded.model_of`."""
    found: dict[str, set[str]] = {}
    for path in paths:
        found.setdefault(sharded.model_of(path), set()).add(path)
    return {name: frozenset(files) for name, files in found.items()}


def model_of(path: str) -> str:
    """Return the name of the model that ``path`` is a file of."""
    return sharded.model_of(path)


def is_shard(path: str) -> bool:
    """Return whether ``path`` is named like a shard of a model."""
    return sharded.model_of(path) != path


def shards_of(name: str, paths: Iterable[str]) -> list[str]:
    """Return the shards among ``paths`` of the model that is ``name`` as one file."""
    return [path for path in paths if sharded.model_of(path) == name and path != name]


EMPTY: Final = Checkpoints((), lambda _: None)
"""No checkpoints: for an unborn branch, or a missing side of a comparison."""


def in_tree(repo: Repository, tree: Tree) -> tuple[Checkpoint, ...]:
    """Return the tracked files of ``tree`` that are manifests.

    git reads attributes from the worktree.  If ``tree`` has other attributes, all manifests count.
    """
    files = _candidates(repo, tree)
    repo.promised.expect(entry.id for entry in files.values())
    return tuple(
        Checkpoint(path, files[path].id, files[path].mode)
        for path in sorted(files)
        if is_manifest(repo, files[path].id)
    )


def by_content(repo: Repository, files: Mapping[str, str]) -> tuple[Checkpoint, ...]:
    """Return those of ``files`` (path -> blob id) that are manifests, whatever their attributes."""
    repo.promised.obtain(files.values())
    ask = "".join(f"{oid}\n" for oid in files.values()).encode()
    rows = split_lines(
        repo.git().run("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=ask).text
    )
    small = {oid for oid, size in map(str.split, rows) if size.isdigit() and int(size) <= MAX_BYTES}
    found = {path: oid for path, oid in files.items() if oid in small and is_manifest(repo, oid)}
    return tuple(Checkpoint(path, oid) for path, oid in found.items())


def expect(repo: Repository, revisions: Iterable[str]) -> None:
    """Announce that the checkpoints of ``revisions`` will be read: a partial clone fetches them together."""
    if not repo.promised.is_partial:
        return
    commits = [oid for revision in revisions if (oid := repo.commit_of(revision)) is not None]
    repo.promised.expect(repo.commit(oid).tree for oid in commits)
    for tree in dict.fromkeys(map(repo.tree_of, commits)):
        repo.promised.expect(entry.id for entry in _candidates(repo, tree).values())


def _candidates(repo: Repository, tree: Tree) -> dict[str, TreeEntry]:
    """Return path -> entry of the files of ``tree`` that may be checkpoints."""
    files = dict(repo.walk_blobs(tree))
    tracked = only_tracked(repo, files) if _has_attributes_here(repo, files) else files
    if repo.promised.is_partial and tree.get(STORES) is None:
        # A tree without stores has no checkpoints that the remote would have to send.
        return {path: files[path] for path in tracked if repo.has(files[path].id)}
    return {path: files[path] for path in tracked}


def tracked_in(repo: Repository, tree: Tree) -> set[str]:
    """Return the tracked files of ``tree``, manifests or not; none if ``tree`` has other attributes."""
    files = dict(repo.walk_blobs(tree))
    return {*only_tracked(repo, files)} if _has_attributes_here(repo, files) else set()


def _has_attributes_here(repo: Repository, files: Mapping[str, TreeEntry]) -> bool:
    """Return whether git, which reads attributes from the worktree, finds those of ``files``."""
    own = {path: entry.id for path, entry in files.items() if path.rpartition("/")[2] == ".gitattributes"}
    return not repo.is_bare and own == repo.attribute_files()


def is_manifest(repo: Repository, oid: str) -> bool:
    """Return whether blob ``oid`` starts with the magic of a manifest."""
    blob = repo.blob(oid)
    return blob is not None and blob.size <= MAX_BYTES and looks_like_manifest(blob.data)
