"""``theta add --update-type``: an update that the user brings becomes the next version of a checkpoint.

The worktree file becomes the updated model, and what is staged holds the factors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from theta.codecs import arith
from theta.codecs.base import Tensor
from theta.dtypes import DTYPES
from theta.errors import NotFoundError, UsageError, WouldOverwriteError
from theta.git.index import Entry, Staged
from theta.porcelain import lazily, staging, updates, worktree
from theta.porcelain.session import Session
from theta.porcelain.staging import Added
from theta.porcelain.updates import Brought, LowRank, Scale, Sparse, Update, Whole
from theta.progress import Progress, begin
from theta.store import layering, layers, listings, tensors
from theta.store.manifest import Line, Manifest
from theta.store.parallel import ordered
from theta.store.restore import Restorer, checked_chunk
from theta.store.snapshot import sorted_lines

if TYPE_CHECKING:
    from theta.codecs.brought import Applied

_WEIGHT: Final = ".weight"
_BIAS: Final = ".bias"
_TREE_BYTES: Final = 900
"""About what the objects of a tensor take beside its factors."""


@dataclass(frozen=True)
class Step:
    """One tensor and what happens to it."""

    line: Line
    update: Update


def update(
    session: Session, path: str, kind: str | None, data: Path, progress: Progress | None = None
) -> Added:
    """Apply the updates of ``kind`` in ``data`` to the checkpoint at ``path`` and stage the result.

    Raises ``UsageError`` that lists whatever does not fit, ``NotFoundError`` where the checkpoint is not
    in HEAD, ``WouldOverwriteError`` where its file is not what HEAD has; nothing is changed then.
    """
    entry, manifest = _committed(session, path)
    steps = plan(manifest, updates.read(data, kind))
    lazily.fetch_missing(session, manifest)
    pack = session.objects.writer()
    before = pack.size
    try:
        lines = dict(manifest.by_name)
        new = []
        for planned in filter(None, _planned(session, steps, progress)):
            lines[planned.name] = planned.write(pack)
            new.append(planned.name)
        whole = replace(manifest, lines=tuple(sorted_lines(lines.values())))
        changed = listings.write(pack, whole)
        oid = pack.blob(changed.data, text=True)
        stored = pack.size - before
        pack.finish()
    finally:
        pack.abort()
    session.objects.refresh()
    info = worktree.fill(session, path, changed, oid, entry.mode, progress)
    with session.index_edit() as edit:
        edit.put(Staged(path, oid, entry.mode, stat=info))
    staging.sync(session)
    session.cache.save()
    return Added(path, changed, oid, tuple(new), "", info, entry.mode, stored)


def _committed(session: Session, path: str) -> tuple[Entry, Manifest]:
    """The entry and the manifest of ``path``, which must be the same in HEAD, index and worktree."""
    entry = session.staged().get(path)
    at_head = session.in_tree("HEAD").get(path) if session.repo.head() else None
    if at_head is None:
        raise NotFoundError(f"there is no committed checkpoint {path} to update", hint="commit it first")
    if entry is None or entry.oid != at_head:
        raise WouldOverwriteError(f"{path} has staged changes", hint="commit them first")
    if worktree.examine(session, path, at_head).state is not worktree.State.SAME:
        raise WouldOverwriteError(
            f"{path} is not what HEAD has", hint=f"commit it, or run 'theta restore {path}'"
        )
    return entry, session.manifest(at_head)


# -- which tensor, and whether it fits ---------------------------------------------------------


def plan(manifest: Manifest, brought: Brought) -> list[Step]:
    """What happens to which tensor; raises ``UsageError`` that lists all that does not fit."""
    problems = list(brought.problems)
    found: dict[str, Step] = {}
    rename = _renaming(manifest.by_name, brought)
    for name, item in brought.updates.items():
        line = _line(manifest.by_name, rename(name), name in brought.modules)
        reason = f"{name} names no tensor" if line is None else _misfit(line, item)
        if reason or line is None:
            problems.append(reason)
        elif line.name in found:
            problems.append(f"{name} is a second update of {line.name}")
        else:
            found[line.name] = Step(line, item)
    for step in list(found.values()):
        bias = manifest.by_name.get(step.line.name.removesuffix(_WEIGHT) + _BIAS)
        if isinstance(step.update, Scale) and step.update.with_bias and bias and bias.name not in found:
            found[bias.name] = Step(bias, Scale(step.update.factors.reshape(-1)))
    if problems:
        raise UsageError(f"the update does not fit: {updates.listed(problems)}", hint="nothing was changed")
    return [found[name] for name in sorted(found)]


def _line(lines: Mapping[str, Line], name: str, may_be_module: bool) -> Line | None:
    return lines.get(name) or (lines.get(name + _WEIGHT) if may_be_module else None)


def _renaming(lines: Mapping[str, Line], brought: Brought) -> Callable[[str], str]:
    """Names as they are; or, where none is known so, with one leading part less, or one more."""
    ways: list[Callable[[str], str]] = [lambda name: name, lambda name: name.partition(".")[2]]
    ways += [_prefixed(head) for head in sorted({name.partition(".")[0] for name in lines})]

    def known(way: Callable[[str], str]) -> int:
        return sum(_line(lines, way(name), name in brought.modules) is not None for name in brought.updates)

    return max(ways, key=known)


def _prefixed(head: str) -> Callable[[str], str]:
    return lambda name: f"{head}.{name}"


def _misfit(line: Line, item: Update) -> str:
    """Why ``item`` cannot be an update of ``line``; empty if it can."""
    shape = tuple(line.shape)
    columns = line.nbytes // max(shape[0] if shape else 1, 1) // DTYPES[line.dtype].itemsize
    if not isinstance(item, Whole) and not arith.has_values(line.dtype):
        return f"{line.name} is {line.dtype}, which holds no numbers that an update could change"
    if isinstance(item, LowRank):
        wanted = (item.u.shape[0], item.v.shape[0])
        fits = len(shape) > 1 and wanted == (shape[0], columns)
        return "" if fits else f"{line.name} is {list(shape)}, the factors are for {list(wanted)}"
    if isinstance(item, Scale):
        return "" if _broadcasts(item.factors.shape, shape) else _other(line, item.factors.shape)
    if isinstance(item, Sparse):
        return _sparse_misfit(line, item)
    if item.tensor.dtype != line.dtype and not all(map(arith.has_values, (item.tensor.dtype, line.dtype))):
        return f"{line.name} is {line.dtype}, its update {item.tensor.dtype}"
    return "" if tuple(item.tensor.shape) == shape else _other(line, item.tensor.shape)


def _other(line: Line, shape: Sequence[int]) -> str:
    return f"{line.name} is {list(line.shape)}, its update {list(shape)}"


def _broadcasts(part: Sequence[int], whole: Sequence[int]) -> bool:
    padded = (1,) * (len(whole) - len(part)) + tuple(part)
    return len(padded) == len(whole) and all(p in (1, w) for p, w in zip(padded, whole, strict=True))


def _sparse_misfit(line: Line, item: Sparse) -> str:
    if item.shape is not None and item.shape != tuple(line.shape):
        return _other(line, item.shape)
    size = line.nbytes // DTYPES[line.dtype].itemsize
    inside = not item.indices.size or (item.indices.min() >= 0 and item.indices.max() < size)
    return "" if inside else f"{line.name} has {size} elements, and the update has indices outside"


# -- doing it ------------------------------------------------------------------------------------


def _planned(
    session: Session, steps: Sequence[Step], progress: Progress | None
) -> Iterable[layering.Planned | None]:
    """The new layers of each tensor; none where its value stays."""

    def work(step: Step) -> layering.Planned | None:
        old = _read(session, step.line)
        done = apply(old, step.update)
        same = done.new.words.tobytes() == old.words.tobytes()
        return None if same else _layered(session, step, done)

    begin(progress, "updating", sum(step.line.nbytes for step in steps))
    for step, planned in zip(steps, ordered(work, steps, lambda step: step.line.nbytes, 1), strict=True):
        yield planned
        if progress is not None:
            progress(step.line.nbytes)


def _read(session: Session, line: Line) -> Tensor:
    record = Restorer(session.objects).record(line)
    view = layers.top(session.objects, record) if record.chunks else None
    pieces = [checked_chunk(view, record, n, line.name) for n in range(len(record.chunks)) if view]
    return Tensor.from_bytes(b"".join(pieces), line.dtype, line.shape)


def apply(old: Tensor, item: Update) -> Applied:
    """The tensor after ``item``, and how it is stored on what it was."""
    from theta.codecs import brought

    if isinstance(item, LowRank):
        budget = max(item.nbytes - _TREE_BYTES, item.nbytes * 9 // 10)
        return brought.add_product(old, item.u, item.v, item.mantissa, budget)
    if isinstance(item, Scale):
        return brought.multiply(old, item.factors)
    if isinstance(item, Sparse):
        return brought.Applied(_sparse(old, item))
    return brought.Applied(_cast(item.tensor, old.dtype))


def _sparse(old: Tensor, item: Sparse) -> Tensor:
    import numpy as np

    words = old.words.copy()
    places, inverse = np.unique(item.indices, return_inverse=True)
    added = np.bincount(inverse, item.data, places.size)
    with np.errstate(all="ignore"):
        values = arith.to_values(words[places], old.dtype) + added
    words[places] = arith.to_words(values, old.dtype)
    return Tensor(old.dtype, old.shape, words)


def _cast(tensor: Tensor, dtype: str) -> Tensor:
    """``tensor`` in ``dtype``; floats are rounded, anything else must have that dtype already."""
    if tensor.dtype == dtype:
        return tensor
    words = arith.to_words(arith.to_values(tensor.words, tensor.dtype), dtype)
    return Tensor(dtype, tensor.shape, words)


def _layered(session: Session, step: Step, done: Applied) -> layering.Planned:
    line = step.line
    raw: memoryview[Any] = done.new.words.data.cast("B")
    parts, start = [], 0
    for length in tensors.chunk_lengths(line.dtype, line.shape):
        parts.append((length, hashlib.sha256(raw[start : start + length]).digest()))
        start += length
    return layering.plan(session.objects, line.name, done.new, parts, [line], done.encode)
