"""``theta add --update-type``: apply an update from a file to a checkpoint.

The worktree file becomes the updated model.  The index gets a version that is stored as the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from theta.errors import NotFoundError, WouldOverwriteError
from theta.git.backends.index_entries import Staged
from theta.porcelain.stage import folding, update_files
from theta.porcelain.stage.folding import UpdatedShard
from theta.porcelain.stage.staging import Added
from theta.porcelain.tensors import tied_weights
from theta.porcelain.workspace import closures, worktree
from theta.porcelain.workspace.checkpoints import Checkpoint
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.format.manifest import Manifest


def update(
    session: Session, path: str, kind: str | None, data: Path, progress: Progress | None = None
) -> Added:
    """Apply the updates of ``kind`` in ``data`` to the checkpoint at ``path``, as :func:`update_model`."""
    return update_model(session, [path], kind, [(data, 1.0)], progress)[0]


def update_model(
    session: Session,
    paths: Sequence[str],
    kind: str | None,
    data: Sequence[tuple[Path, float]],
    progress: Progress | None = None,
) -> list[Added]:
    """Apply the updates of ``kind`` in ``data`` to the model whose shards are ``paths``; stage the result.

    ``data`` are files or adapters with their weights; several are added up.  Each name is looked for in all
    shards, and each shard keeps its tensors.

    Raises ``UsageError`` that lists all misfits, ``NotFoundError`` if a checkpoint is not in HEAD, and
    ``WouldOverwriteError`` if its file differs from HEAD; then nothing is changed.
    """
    entries = [_committed(session, path) for path in paths]
    shards = [UpdatedShard(entry.path, manifest) for entry, manifest in entries]
    brought = [update_files.read(place, kind) for place, _ in data]
    config = tied_weights.beside(session, paths[0])
    found = folding.plan(shards, brought, [weight for _, weight in data], config)
    for shard in shards:
        session.objects.expect(shard.manifest.trees())
    warning = "; ".join(
        dict.fromkeys(filter(None, map(partial(folding.warning, found.ties), brought, found.fitted)))
    )
    with closures.following(session) as change:
        changed = folding.store(session.objects, change.pack, shards, found.steps, progress)
        oids = [change.pack.blob(manifest.data, text=True) for manifest in changed]
        change.store()
        added: list[Added] = []
        for shard, manifest, oid, (entry, _) in zip(shards, changed, oids, entries, strict=True):
            if shard.new or len(shards) == 1:
                path, mode = shard.path, entry.mode
                info = worktree.fill(session, path, manifest, oid, mode, progress)
                change.index.put(Staged(path, oid, mode, stat=info))
                new, warned = tuple(shard.new), "" if added else warning
                added.append(
                    Added(path, manifest, oid, new, "", info, mode, shard.stored, warned, changed=True)
                )
    session.cache.save()
    return added


def _committed(session: Session, path: str) -> tuple[Checkpoint, Manifest]:
    """Return the entry and the manifest of ``path``, which must be the same in HEAD, index and worktree."""
    entry, at_head = session.index.get(path), session.head.oid(path)
    if at_head is None:
        raise NotFoundError(f"there is no committed checkpoint {path} to update", hint="commit it first")
    if entry is None or entry.oid != at_head:
        raise WouldOverwriteError(f"{path} has staged changes", hint="commit them first")
    if worktree.examine(session, path, at_head).state is not worktree.State.SAME:
        raise WouldOverwriteError(
            f"{session.place(path)} is not what HEAD has",
            hint=f"commit it, or run 'theta restore {session.word(path)}'",
        )
    return entry, session.manifest(at_head)
