"""``theta add --update-type``: apply an update from a file to a checkpoint.

The worktree file becomes the updated model.  The index gets a version that is stored as the factors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta._numpy import np
from theta.codecs import arith, brought
from theta.codecs.base import TensorWords
from theta.codecs.factoring.exact_sums import Product
from theta.errors import NotFoundError, UsageError, WouldOverwriteError
from theta.git.backends.index_entries import Staged
from theta.merging import result_file
from theta.parallel import ordered
from theta.porcelain.stage import summing, update_files, updates
from theta.porcelain.stage.fitting import Fitted, Step, plan
from theta.porcelain.stage.staging import Added
from theta.porcelain.stage.updates import Brought, LowRank, Rows, Scale, Slices, Sparse, Update, Whole
from theta.porcelain.tensors import tied_weights
from theta.porcelain.tensors.tied_weights import TiedWeights
from theta.porcelain.workspace import index_closure, worktree
from theta.porcelain.workspace.checkpoints import Checkpoint
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store.format import listings
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.packs import PackWriter
from theta.store.read.stored_tensor import StoredTensor
from theta.store.write import layer_plan
from theta.store.write.layer_plan import Changed, Hints
from theta.store.write.snapshot import sorted_lines

if TYPE_CHECKING:
    from theta.codecs.brought import Applied

_WEIGHT: Final = ".weight"


@dataclass
class _Shard:
    """A file of the model that is updated, before and after."""

    entry: Checkpoint
    manifest: Manifest
    new: list[str] = field(default_factory=list)
    stored: int = 0

    def changed(self, session: Session, pack: PackWriter, lines: Mapping[str, Line]) -> Manifest:
        """Write the manifest with ``lines`` in place of its own, and a new file's layout if it takes one."""
        found = tuple(sorted_lines(({**self.manifest.by_name, **lines}).values()))
        skeleton = result_file.laid_out(session.objects, pack, self.manifest, found)
        if skeleton is None:
            raise UsageError(
                f"{self.entry.path} cannot get tensors of other shapes: it has more than tensors",
                hint="convert it with 'theta convert' to safetensors",
            )
        return listings.write(pack, replace(self.manifest, lines=found, skeleton=skeleton))


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
    shards = [_Shard(*_committed(session, path)) for path in paths]
    whole = _joined(shards)
    brought = [update_files.read(place, kind) for place, _ in data]
    found = tied_weights.find(tied_weights.beside(session, paths[0]), whole.by_name)
    plans = [plan(whole, one, found) for one in brought]
    steps = summing.together([one.steps for one in plans], [weight for _, weight in data])
    if len(shards) > 1 and (added_names := [step.line.name for step in steps if step.is_new]):
        raise UsageError(
            f"a model in shards gets no new tensors: {updates.listed(added_names)}",
            hint="join it into one file with 'theta convert'",
        )
    for shard in shards:
        session.objects.expect(shard.manifest.trees())
    warning = "; ".join(dict.fromkeys(filter(None, map(partial(_warning, found), brought, plans))))
    with index_closure.following(session) as change:
        changed = _stored(session, change.pack, shards, steps, progress)
        oids = [change.pack.blob(manifest.data, text=True) for manifest in changed]
        change.store()
        added: list[Added] = []
        for shard, manifest, oid in zip(shards, changed, oids, strict=True):
            if shard.new or len(shards) == 1:
                path, mode = shard.entry.path, shard.entry.mode
                info = worktree.fill(session, path, manifest, oid, mode, progress)
                change.index.put(Staged(path, oid, mode, stat=info))
                new, warned = tuple(shard.new), "" if added else warning
                added.append(Added(path, manifest, oid, new, "", info, mode, shard.stored, warned))
    session.cache.save()
    return added


def _joined(shards: Sequence[_Shard]) -> Manifest:
    """Return the tensors of all shards as one checkpoint; raises :class:`UsageError` for a name in two."""
    lines: dict[str, Line] = {}
    for shard in shards:
        if twice := lines.keys() & shard.manifest.by_name.keys():
            raise UsageError(
                f"{min(twice)} is in several of the files: they are not shards of one model",
                hint="name one of them",
            )
        lines |= shard.manifest.by_name
    return replace(shards[0].manifest, lines=tuple(sorted_lines(lines.values())))


def _stored(
    session: Session,
    pack: PackWriter,
    shards: Sequence[_Shard],
    steps: Sequence[Step],
    progress: Progress | None,
) -> list[Manifest]:
    """Store what changes; return the manifests of all shards."""
    owner = {name: shard for shard in shards for name in shard.manifest.by_name}
    owner |= {step.line.name: shards[0] for step in steps if step.is_new}
    lines: dict[str, Line] = {}
    for planned in filter(None, _planned(session, steps, progress)):
        before = pack.size
        lines[planned.name] = planned.write(pack)
        owner[planned.name].new.append(planned.name)
        owner[planned.name].stored += pack.size - before
    return [shard.changed(session, pack, {name: lines[name] for name in shard.new}) for shard in shards]


def _warning(found: TiedWeights, brought: Brought, fitted: Fitted) -> str:
    """Return what the user should know of one source: doubtful ties, names, rows; "" if there is nothing."""
    told = [_of_ties(found, brought, fitted.steps), _of_names(fitted.renamed), _of_rows(fitted.steps)]
    return "; ".join(filter(None, told))


def _of_ties(found: TiedWeights, brought: Brought, steps: Sequence[Step]) -> str:
    """Return a warning if an embedding changes and no configuration says whether the head is tied to it."""
    changed = {step.line.name.removesuffix(_WEIGHT) for step in steps}
    if found.certain or not brought.of_adapter or not changed & set(found.modules):
        return ""
    return (
        f"{found.modules[0]}.weight changes, and no config.json says whether the head is tied to it: "
        "if it is, the head changes too"
    )


def _of_names(renamed: Mapping[str, str]) -> str:
    """Return the names that were found under others, the first of them."""
    shown = [f"{name} is {other}" for name, other in renamed.items()][:1]
    more = f" (and {len(renamed) - 1} more)" if len(renamed) > 1 else ""
    return f"the file has other names than the adapter: {shown[0]}{more}" if shown else ""


def _of_rows(steps: Sequence[Step]) -> str:
    """Return a warning of a vocabulary whose size changes, which config.json has too."""
    for step in steps:
        for item in step.updates:
            rows = item.tensor.shape[0] if isinstance(item, Whole) and item.tensor.shape else 0
            if not step.is_new and isinstance(item, Whole) and rows != step.line.shape[0]:
                return f"{step.line.name} has {rows} rows now, so config.json has to say so (vocab_size)"
    return ""


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
        if step.is_new:
            return _layered(session, step, apply(_nothing(step.line.dtype), step.updates[0]))
        old = StoredTensor(session.objects, step.line).whole()
        done = _in_turn(old, step.updates)
        same = done.new.shape == old.shape and done.new.words.tobytes() == old.words.tobytes()
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


def _nothing(dtype: str) -> TensorWords:
    return TensorWords.from_bytes(b"", dtype, (0,))


def apply(old: TensorWords, item: Update) -> Applied:
    """Return the tensor after ``item``, and its encoding relative to ``old`` if there is a special one."""
    if isinstance(item, LowRank):
        product = Product(item.u, item.v, item.scales)
        if item.magnitude is not None:
            return brought.add_with_norms(old, product, item.magnitude, item.by_column)
        return brought.add_product(old, product)
    if isinstance(item, Scale):
        return brought.multiply(old, item.factors)
    if isinstance(item, Sparse):
        return brought.Applied(_sparse(old, item))
    if isinstance(item, Rows):
        return brought.Applied(_with_rows(old, item))
    if isinstance(item, Slices):
        return brought.Applied(_slice_by_slice(old, item))
    return brought.Applied(_cast(item.tensor, old.dtype))


def _with_rows(old: TensorWords, item: Rows) -> TensorWords:
    words = old.words.copy()
    words.reshape(old.shape)[list(item.indices)] = _cast(item.tensor, old.dtype).words.reshape(
        item.tensor.shape
    )
    return TensorWords(old.dtype, old.shape, words)


def _slice_by_slice(old: TensorWords, item: Slices) -> TensorWords:
    size = math.prod(old.shape[1:])
    parts = [
        apply(TensorWords(old.dtype, old.shape[1:], old.read(n * size, (n + 1) * size)), one).new.words
        for n, one in enumerate(item.items)
    ]
    return TensorWords(old.dtype, old.shape, np.concatenate(parts))


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
    bases = [] if step.is_new else [line]
    return layer_plan.plan(session.objects, changed, bases, Hints(given=done.encode))
