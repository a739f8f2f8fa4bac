"""``theta add --update-type``: apply an update from a file to a checkpoint.

The worktree file becomes the updated model.  The index gets a version that is stored as the factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta._numpy import np
from theta.codecs import arith, brought
from theta.codecs.base import TensorWords
from theta.errors import NotFoundError, WouldOverwriteError
from theta.git.backends.index_entries import Staged
from theta.parallel import ordered
from theta.porcelain.stage import updates
from theta.porcelain.stage.fitting import Step, plan
from theta.porcelain.stage.staging import Added
from theta.porcelain.stage.updates import Brought, LowRank, Scale, Sparse, Update
from theta.porcelain.tensors import tied_weights
from theta.porcelain.tensors.tied_weights import TiedWeights
from theta.porcelain.workspace import index_closure, worktree
from theta.porcelain.workspace.checkpoints import Checkpoint
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store.format import listings
from theta.store.format.manifest import Manifest
from theta.store.read.stored_tensor import StoredTensor
from theta.store.write import layer_plan
from theta.store.write.layer_plan import Changed, Hints
from theta.store.write.snapshot import sorted_lines

if TYPE_CHECKING:
    from theta.codecs.brought import Applied

_WEIGHT: Final = ".weight"
_TREE_BYTES: Final = 900
"""Approximate bytes of the objects of a tensor without its factors."""


def update(
    session: Session, path: str, kind: str | None, data: Path, progress: Progress | None = None
) -> Added:
    """Apply the updates of ``kind`` in ``data`` to the checkpoint at ``path`` and stage the result.

    Raises ``UsageError`` that lists all misfits, ``NotFoundError`` if the checkpoint is not in HEAD, and
    ``WouldOverwriteError`` if its file differs from HEAD; then nothing is changed.
    """
    entry, manifest = _committed(session, path)
    brought = updates.read(data, kind)
    found = tied_weights.find(tied_weights.beside(session, path), manifest.by_name)
    steps = plan(manifest, brought, found)
    session.objects.expect(manifest.trees())
    with index_closure.following(session) as change:
        pack = change.pack
        lines = dict(manifest.by_name)
        new = []
        for planned in filter(None, _planned(session, steps, progress)):
            lines[planned.name] = planned.write(pack)
            new.append(planned.name)
        whole = replace(manifest, lines=tuple(sorted_lines(lines.values())))
        changed = listings.write(pack, whole)
        oid = pack.blob(changed.data, text=True)
        stored = pack.size
        change.store()
        info = worktree.fill(session, path, changed, oid, entry.mode, progress)
        change.index.put(Staged(path, oid, entry.mode, stat=info))
    session.cache.save()
    warning = _warning(brought, found, steps)
    return Added(path, changed, oid, tuple(new), "", info, entry.mode, stored, warning)


def _warning(brought: Brought, found: TiedWeights, steps: Sequence[Step]) -> str:
    """Return a warning if an embedding changes and no configuration says whether the head is tied to it."""
    changed = {step.line.name.removesuffix(_WEIGHT) for step in steps}
    if found.certain or not brought.of_adapter or not changed & set(found.modules):
        return ""
    return (
        f"{found.modules[0]}.weight changes, and no config.json says whether the head is tied to it: "
        "if it is, the head changes too"
    )


def _committed(session: Session, path: str) -> tuple[Checkpoint, Manifest]:
    """Return the entry and the manifest of ``path``, which must be the same in HEAD, index and worktree."""
    entry, at_head = session.index.get(path), session.head.oid(path)
    if at_head is None:
        raise NotFoundError(f"there is no committed checkpoint {path} to update", hint="commit it first")
    if entry is None or entry.oid != at_head:
        raise WouldOverwriteError(f"{path} has staged changes", hint="commit them first")
    if worktree.examine(session, path, at_head).state is not worktree.State.SAME:
        raise WouldOverwriteError(
            f"{path} is not what HEAD has", hint=f"commit it, or run 'theta restore {path}'"
        )
    return entry, session.manifest(at_head)


# -- doing it ------------------------------------------------------------------------------------


def _planned(
    session: Session, steps: Sequence[Step], progress: Progress | None
) -> Iterable[layer_plan.Planned | None]:
    """Yield the new layers of each tensor; None when its value does not change."""

    def work(step: Step) -> layer_plan.Planned | None:
        old = StoredTensor(session.objects, step.line).whole()
        done = _in_turn(old, step.updates)
        same = done.new.words.tobytes() == old.words.tobytes()
        return None if same else _layered(session, step, done)

    begin(progress, "updating", sum(step.line.nbytes for step in steps))
    for step, planned in zip(steps, ordered(work, steps, lambda step: step.line.nbytes, 1), strict=True):
        yield planned
        if progress is not None:
            progress(step.line.nbytes)


def _in_turn(old: TensorWords, items: Sequence[Update]) -> Applied:
    """Apply all ``items`` in order; the result has an encoding only if there is one item."""
    done = apply(old, items[0])
    for item in items[1:]:
        done = replace(apply(done.new, item), encode=None)
    return done


def apply(old: TensorWords, item: Update) -> Applied:
    """Return the tensor after ``item``, and its encoding relative to ``old`` if there is a special one."""
    if isinstance(item, LowRank):
        budget = max(item.nbytes - _TREE_BYTES, item.nbytes * 9 // 10)
        return brought.add_product(old, item.u, item.v, item.mantissa, budget)
    if isinstance(item, Scale):
        return brought.multiply(old, item.factors)
    if isinstance(item, Sparse):
        return brought.Applied(_sparse(old, item))
    return brought.Applied(_cast(item.tensor, old.dtype))


def _sparse(old: TensorWords, item: Sparse) -> TensorWords:
    words = old.words.copy()
    places, inverse = np.unique(item.indices, return_inverse=True)
    added = np.bincount(inverse, item.data, places.size)
    with np.errstate(all="ignore"):
        values = arith.to_values(words[places], old.dtype) + added
    words[places] = arith.to_words(values, old.dtype)
    return TensorWords(old.dtype, old.shape, words)


def _cast(tensor: TensorWords, dtype: str) -> TensorWords:
    """Cast ``tensor`` to ``dtype``; floats are rounded, others must already have that dtype."""
    if tensor.dtype == dtype:
        return tensor
    words = arith.to_words(arith.to_values(tensor.words, tensor.dtype), dtype)
    return TensorWords(dtype, tensor.shape, words)


def _layered(session: Session, step: Step, done: Applied) -> layer_plan.Planned:
    line = step.line
    changed = Changed(line.name, done.new, updates.chunks(done.new))
    return layer_plan.plan(session.objects, changed, [line], Hints(given=done.encode))
