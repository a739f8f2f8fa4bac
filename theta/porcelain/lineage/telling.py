"""The word for what was done to a checkpoint, from its manifests: cast, trimmed, trained, of low rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from theta.codecs import lowrank
from theta.merging.strategies.factor_names import FACTOR
from theta.store import changes
from theta.store.changes import Changes, ValueDigest
from theta.store.format.manifest import Manifest
from theta.store.odb.objects import Objects
from theta.store.read.tensor_records import read_record

_FACTORS: Final = lowrank.NAME.partition("/")[0] + "/"
_LOOKED_AT: Final = 16
"""Changed tensors whose records are read to find out whether they are stored as factors."""
_PREFIX: Final = "base_model.model."
_ALIKE: Final = 0.5
"""The share of its tensors that a file has in common with the one that it was made of."""

Told = tuple[str, str]
"""A word, and more about it."""


def change(objects: Objects, before: Manifest, after: Manifest) -> Told | None:
    """Return what made ``after`` of ``before``; None when they are the same."""
    found = changes.compare(changes.of_manifest(before), changes.of_manifest(after))
    told = _seen(found, before, after)
    if told is not None or not found:
        return told
    if not found.tensors:
        return "rewritten", found.summary()
    return ("low-rank" if _has_factors(objects, after, found) else "trained"), found.summary()


def _has_factors(objects: Objects, after: Manifest, found: Changes) -> bool:
    """Return whether most of the matrices that changed are stored as factors."""
    changed = (one.name for one in found.tensors if one.new is not None and len(one.new.shape) > 1)
    trees = [after.by_name[name].tree for name in changed][:_LOOKED_AT]
    looked = [_is_factored(objects, tree) for tree in trees if objects.has(tree)]
    return bool(looked) and sum(looked) * 2 > len(looked)


def _is_factored(objects: Objects, tree: str) -> bool:
    layers = read_record(objects, tree).layers
    return bool(layers) and layers[-1].codec.startswith(_FACTORS)


def _seen(found: Changes, before: Manifest, after: Manifest) -> Told | None:
    """Return what the kinds of changes alone tell; None when values changed as in a training."""
    kinds = Counter(change.status for change in found.tensors)
    if before.format != after.format and not kinds["M"]:
        return "converted", f"{before.format} to {after.format}"
    if not kinds or kinds["M"]:
        return None
    if set(kinds) == {"T"}:
        return "cast", ", ".join(dict.fromkeys(f"{old.dtype} to {new.dtype}" for old, new in _values(found)))
    if set(kinds) == {"S"}:
        return "resized", ", ".join(f"{old.shape} to {new.shape}" for old, new in _values(found))
    names = {"A": "extended", "D": "trimmed", "R": "renamed"}
    return (names[next(iter(kinds))], found.summary()) if len(kinds) == 1 else None


def _values(found: Changes) -> Iterator[tuple[ValueDigest, ValueDigest]]:
    return ((one.old, one.new) for one in found.tensors if one.old is not None and one.new is not None)


def relation(other: Manifest, after: Manifest) -> Told | None:
    """Return how ``after`` was made of ``other``, another file; None when they have little in common."""
    if (adapter := _adapter(other, after)) is not None:
        return adapter
    digests = {line.digest for line in other.lines}
    same = sum(line.digest in digests for line in after.lines)
    if same > _ALIKE * len(after.lines):
        if other.format != after.format:
            return "converted", f"{other.format} to {after.format}"
        return "copied", f"{same} of {changes.counted(len(after.lines), 'tensor')}"
    names = [line for line in after.lines if line.name in other.by_name]
    if len(names) <= _ALIKE * len(after.lines):
        return None
    pairs = [(other.by_name[line.name], line) for line in names]
    if all(old.shape == new.shape and old.dtype != new.dtype for old, new in pairs):
        return "cast", ", ".join(dict.fromkeys(f"{old.dtype} to {new.dtype}" for old, new in pairs))
    return None


def _adapter(other: Manifest, after: Manifest) -> Told | None:
    """Return what an adapter is for, if it has factors for the weights of ``other``; None for others."""
    modules = {module for line in after.lines if (module := _module(line.name)) is not None}
    there = sum(f"{module}.weight" in other.by_name or module in other.by_name for module in modules)
    if not modules or there <= _ALIKE * len(modules):
        return None
    return "adapter", f"of low rank for {there} of {changes.counted(len(modules), 'module')}"


def _module(name: str) -> str | None:
    """Return the module that a factor of an adapter is for; None for other tensors."""
    match = FACTOR.fullmatch(name)
    return None if match is None else match["module"].removeprefix(_PREFIX)
