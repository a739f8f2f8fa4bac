"""Comparing the shards of a model, such as ``model-00001-of-00003.safetensors``, as one.

A resharded model has the same tensors in other files; no tensor changes.  The shards of a model have one
stem and are in one directory.  A model in a single file has the name without numbers, and so has its index
(``model.safetensors.index.json``).  If two shards have different tensors of the same name, each file is
compared as a checkpoint of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from theta.lazy import Module
from theta.porcelain.workspace.checkpoints import Checkpoints, by_model
from theta.porcelain.workspace.session import Session
from theta.store import changes
from theta.store.changes import Changes, Version

if TYPE_CHECKING:
    from theta.formats import sharded
else:
    sharded = Module("theta.formats.sharded")


@dataclass(frozen=True)
class ModelChanges(Changes):
    """The changes of a sharded model; ``before`` and ``after`` count its files, ``paths`` are all of them."""

    paths: tuple[str, ...] = ()
    before: int = 0
    after: int = 0

    def summary(self) -> str:
        """Return one line with the changes and the number of files."""
        text = super().summary()
        if self.before == self.after or self.created or self.removed:
            return f"{text} ({changes.counted(self.after or self.before, 'file')})"
        return f"{text} ({self.before} -> {self.after} files)"


@dataclass(frozen=True)
class Group:
    """A model with several files in two versions together; ``before`` and ``after`` are their paths."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of both versions."""
        return tuple(sorted({*self.before, *self.after}))


def groups(before: Iterable[str], after: Iterable[str]) -> list[Group]:
    """Return the models among the paths of two versions whose files are compared together."""
    old, new = by_model(before), by_model(after)
    found: list[Group] = []
    for name in sorted(old.keys() | new.keys()):
        sides = [_files(name, side.get(name, frozenset())) for side in (old, new)]
        if any(side is None for side in sides):
            continue
        group = Group(name, *(tuple(sorted(side or ())) for side in sides))
        if len(group.paths) > 1:
            found.append(group)
    return found


def _files(name: str, paths: frozenset[str]) -> frozenset[str] | None:
    """Return ``paths``; None when an unnumbered file is among shards, and the model is ambiguous."""
    return None if name in paths and len(paths) > 1 else paths


def joined(versions: Mapping[str, Version]) -> Version | None:
    """Merge the files (path -> version) into one version; None when two disagree or there are none."""
    values: dict[str, changes.ValueDigest] = {}
    for version in versions.values():
        for name, value in version.values.items():
            if values.setdefault(name, value).digest != value.digest:
                return None
    if not versions:
        return None
    container = "\n".join(f"{path} {versions[path].skeleton}" for path in sorted(versions))
    return Version(next(iter(versions.values())).format, container, values)


def compare(group: Group, before: Mapping[str, Version], after: Mapping[str, Version]) -> ModelChanges | None:
    """Return the changes of the model; None when its files cannot be joined."""
    old, new = joined(before), joined(after)
    if (before and old is None) or (after and new is None):
        return None
    found = changes.compare(old, new)
    ends = (found.created, found.removed)
    counts = (found.tensors, found.container, found.unchanged)
    return ModelChanges(*counts, *ends, group.paths, len(before), len(after))


def changed(session: Session, before: Checkpoints, after: Checkpoints) -> dict[str, Changes]:
    """Return path or name of a sharded model -> changes, for all that differ between two versions."""
    found: dict[str, Changes] = {}
    taken: set[str] = set()
    for group in groups(before, after):
        if all(before.oid(path) == after.oid(path) for path in group.paths):
            continue
        item = compare(group, versions(session, group.before, before), versions(session, group.after, after))
        if item is not None:
            found[group.name] = item
            taken.update(group.paths)
    for path in (before.keys() | after.keys()) - taken:
        if before.oid(path) != after.oid(path):
            found[path] = changes_of(session, before.oid(path), after.oid(path))
    return dict(sorted(found.items()))


def changes_of(session: Session, before: str | None, after: str | None) -> Changes:
    """Return the changes from manifest ``before`` to ``after``, with a fault if one is malformed."""
    faults = filter(None, (session.malformed(oid) for oid in (after, before)))
    fault = next((f"malformed: {error}" for error in faults), "")
    found = changes.compare(session.version(before), session.version(after)) if not fault else None
    return Changes((), False, 0, fault=fault) if found is None else found


def versions(session: Session, paths: Iterable[str], side: Checkpoints) -> dict[str, Version]:
    """Return path -> version for those ``paths`` that are checkpoints in ``side``."""
    found = ((path, session.version(side.oid(path))) for path in paths)
    return {path: version for path, version in found if version is not None}


def paths_of(found: Mapping[str, Changes]) -> Iterator[str]:
    """Yield the paths of all files in a result of :func:`changed`."""
    for path, item in found.items():
        yield from item.paths if isinstance(item, ModelChanges) else (path,)
        if item.old_path:
            yield item.old_path
