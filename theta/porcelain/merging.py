"""``theta merge``: git merges files, theta merges checkpoints, one commit holds both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pygit2
from pygit2.enums import FileMode

from theta.git.index import Staged
from theta.git.repository import MODE_BLOB, STORES
from theta.merging import checkpoints
from theta.merging.checkpoints import Outcome
from theta.merging.states import Conflict
from theta.merging.strategies import Policy
from theta.porcelain import mend, staging, worktree
from theta.porcelain.session import Session
from theta.store.manifest import Manifest
from theta.store.packs import PackWriter
from theta.store.snapshot import Progress

Stages = dict[int, str]
"""Stage (0 merged; 1 base, 2 ours, 3 theirs) -> blob id, of one path after git's merge."""


@dataclass
class Merged:
    """What theta made of the checkpoints of a merge."""

    resolved: dict[str, Manifest] = field(default_factory=dict)
    conflicts: dict[str, list[Conflict]] = field(default_factory=dict)
    decided: dict[str, dict[str, str]] = field(default_factory=dict)


class Versions:
    """The checkpoints of the three commits of a merge, found by store: paths may differ."""

    def __init__(self, session: Session, base: str | None, ours: str, theirs: str) -> None:
        self._session = session
        self._by_store = [self._stores(revision) for revision in (base, ours, theirs)]

    def _stores(self, revision: str | None) -> dict[str, Manifest]:
        found = self._session.in_tree(revision) if revision else {}
        manifests = (self._session.manifest_or_none(oid) for oid in found.values())
        return {manifest.store: manifest for manifest in manifests if manifest is not None}

    def of(self, stages: Stages) -> tuple[Manifest | None, Manifest | None, Manifest | None]:
        """Base, ours and theirs of the path with ``stages``; by store where a stage cannot tell."""
        direct = [self._session.manifest_or_none(stages[n]) if n in stages else None for n in (1, 2, 3)]
        if 0 not in stages:
            anchor = direct[1] or direct[2]
            if direct[0] is None and anchor is not None:
                direct[0] = self._by_store[0].get(anchor.store)
            return direct[0], direct[1], direct[2]
        merged = self._session.manifest_or_none(stages[0])
        if merged is None:
            return None, None, None
        base, ours, theirs = (side.get(merged.store) for side in self._by_store)
        return base, ours, theirs


def merge_checkpoints(
    session: Session, pack: PackWriter, versions: Versions, paths: Mapping[str, Stages], policy: Policy
) -> Merged:
    """Merge every checkpoint that both sides changed, whether git could merge its text or not."""
    result = Merged()
    for path, stages in paths.items():
        base, ours, theirs = versions.of(stages)
        if ours is None or theirs is None or (0 in stages and not _both_changed(base, ours, theirs)):
            continue
        outcome: Outcome = checkpoints.merge(session.objects, pack, base, ours, theirs, policy)
        if outcome.manifest is not None:
            result.resolved[path] = outcome.manifest
        else:
            result.conflicts[path] = outcome.conflicts
        result.decided[path] = outcome.decided
    return result


def _both_changed(base: Manifest | None, ours: Manifest, theirs: Manifest) -> bool:
    before = base.data if base else None
    return ours.data != theirs.data and before not in (ours.data, theirs.data)


# -- in the index and the worktree -------------------------------------------------------


def after_git_merge(
    session: Session, theirs: str, policy: Policy, progress: Progress | None = None, *, go_on: bool = False
) -> Merged:
    """Settle the checkpoints of a merge that git left in the index; commits nothing.

    With ``go_on`` whatever is staged is the user's decision; only open conflicts are settled.
    A checkpoint that stays in conflict keeps its stages, and our version stands in the worktree.
    """
    ours = session.repo.resolve("HEAD")
    base = _merge_base(session, ours, theirs)
    paths: dict[str, Stages] = {}
    for entry in session.entries():
        paths.setdefault(entry.path, {})[entry.stage] = entry.oid
    if go_on:
        paths = {path: stages for path, stages in paths.items() if 0 not in stages}
    pack = session.objects.writer()
    try:
        versions = Versions(session, base, ours, theirs)
        merged = merge_checkpoints(session, pack, versions, paths, policy)
        staged = {path: pack.blob(manifest.data, text=True) for path, manifest in merged.resolved.items()}
        pack.finish()
    finally:
        pack.abort()
    session.objects.refresh()
    _apply(session, versions, staged, paths, merged, progress)
    return merged


def _merge_base(session: Session, ours: str, theirs: str) -> str | None:
    found = session.repo.raw.merge_base(pygit2.Oid(hex=ours), pygit2.Oid(hex=theirs))
    return str(found) if found else None


def _apply(
    session: Session,
    versions: Versions,
    staged: dict[str, str],
    paths: Mapping[str, Stages],
    merged: Merged,
    progress: Progress | None,
) -> None:
    with session.index_edit() as edit:
        for path, oid in staged.items():
            edit.put(Staged(path, oid, MODE_BLOB))
        for path in merged.conflicts:
            if 0 in paths[path]:
                edit.put_conflict(path, *_sides(session, versions.of(paths[path])))
    staging.sync(session)
    wanted = [(path, oid, MODE_BLOB) for path, oid in staged.items()]
    wanted += [(path, paths[path][2], MODE_BLOB) for path in merged.conflicts if 2 in paths[path]]
    worktree.put_back(session, wanted, progress)


def _sides(session: Session, found: tuple[Manifest | None, ...]) -> list[str | None]:
    return [session.repo.write_blob(side.data) if side is not None else None for side in found]


def unresolved(session: Session) -> list[str]:
    """All paths (files too) that are in conflict in the index."""
    fields = session.repo.git().lines("diff", "--name-only", "--diff-filter=U", "-z")
    return sorted({path for path in fields if not path.startswith(STORES + "/")})


# -- in memory -----------------------------------------------------------------------------


def merge_trees(
    session: Session, ours: str, theirs: str, policy: Policy
) -> tuple[str | None, Merged, list[str]]:
    """Merge two commits without touching index or worktree.

    Answers the tree (none where there are conflicts), what became of the checkpoints, and the
    files that are in conflict.
    """
    base = _merge_base(session, ours, theirs)
    done = session.repo.git().run(
        "merge-tree", "--write-tree", "-z", "--no-messages", ours, theirs, check=False
    )
    tree_id, *rows = done.text.rstrip("\0").split("\0")
    tree = session.repo.raw[tree_id]
    assert isinstance(tree, pygit2.Tree)
    paths = _stages(session, tree, [row for row in rows if row])
    pack = session.objects.writer()
    try:
        merged = merge_checkpoints(session, pack, Versions(session, base, ours, theirs), paths, policy)
        pack.finish()
    finally:
        pack.abort()
    session.objects.refresh()
    open_files = [path for path, stages in paths.items() if 0 not in stages and path not in merged.resolved]
    if open_files or merged.conflicts:
        return None, merged, open_files
    return _result_tree(session, tree, merged), merged, []


def _stages(session: Session, tree: pygit2.Tree, rows: list[str]) -> dict[str, Stages]:
    paths: dict[str, Stages] = {path: {0: oid} for path, oid in session.in_tree(str(tree.id)).items()}
    open_paths: dict[str, Stages] = {}
    for row in rows:
        head, _, path = row.partition("\t")
        _, oid, stage = head.split(" ")
        if not path.startswith(STORES + "/"):
            open_paths.setdefault(path, {})[int(stage)] = oid
    return paths | open_paths


def _result_tree(session: Session, tree: pygit2.Tree, merged: Merged) -> str:
    index = pygit2.Index()
    index.read_tree(tree)
    for path, manifest in merged.resolved.items():
        index.add(
            pygit2.IndexEntry(path, pygit2.Oid(hex=session.repo.write_blob(manifest.data)), FileMode.BLOB)
        )
    plain = session.repo.raw[index.write_tree(session.repo.raw)]
    assert isinstance(plain, pygit2.Tree)
    return mend.mended_tree(session, plain)
