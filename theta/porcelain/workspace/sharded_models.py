"""Sharded models as one: files such as ``model-00001-of-00003.safetensors`` are compared by tensor.

A model that is cut anew has the same tensors in other files; that is not a change of any of them.  The
files of a model bear one stem, in one folder; a model in a single file is named without numbers, and so is
its index (``model.safetensors.index.json``).  Files that share a tensor's name but not its value are left
alone, each a checkpoint of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from theta.formats.sharded import model_of
from theta.porcelain.workspace.checkpoints import Checkpoints, by_model
from theta.porcelain.workspace.session import Session
from theta.store import changes
from theta.store.changes import Changes, Version
from theta.store.format.manifest import Manifest


@dataclass(frozen=True)
class ModelChanges(Changes):
    """What changed in a model of several files; ``paths`` are those of both versions."""

    paths: tuple[str, ...] = ()
    before: int = 0
    after: int = 0

    def summary(self) -> str:
        """One line for people."""
        text = super().summary()
        if self.before == self.after or self.created or self.removed:
            return f"{text} ({changes.counted(self.after or self.before, 'file')})"
        return f"{text} ({self.before} -> {self.after} files)"


@dataclass(frozen=True)
class Group:
    """A model that is in several files in at least one of two versions."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of both versions."""
        return tuple(sorted({*self.before, *self.after}))


def is_shard(path: str) -> bool:
    """Whether the file at ``path`` is named as one of several of a model."""
    return model_of(path) != path


def groups(before: Iterable[str], after: Iterable[str]) -> list[Group]:
    """The models among two versions' paths whose files are to be taken together."""
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
    """``paths``; none where a file without number stands beside shards: which are the model?"""
    return None if name in paths and len(paths) > 1 else paths


def joined(versions: Mapping[str, Version]) -> Version | None:
    """The files (path -> version) as one; none where two of them disagree about a tensor, or none are."""
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
    """What changed in the model; none where its files cannot be taken together."""
    old, new = joined(before), joined(after)
    if (before and old is None) or (after and new is None):
        return None
    found = changes.compare(old, new)
    ends = (found.created, found.removed)
    counts = (found.tensors, found.container, found.unchanged)
    return ModelChanges(*counts, *ends, group.paths, len(before), len(after))


def changed(session: Session, before: Checkpoints, after: Checkpoints) -> dict[str, Changes]:
    """What differs between two versions: by path, sharded models by their names."""
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
    """What changed from manifest ``before`` to manifest ``after``, or that one of them is malformed."""
    faults = filter(None, (session.malformed(oid) for oid in (after, before)))
    fault = next((f"malformed: {error}" for error in faults), "")
    found = changes.compare(session.version(before), session.version(after)) if not fault else None
    return Changes((), False, 0, fault=fault) if found is None else found


def versions(session: Session, paths: Iterable[str], side: Checkpoints) -> dict[str, Version]:
    """Path -> version in ``side``, of those ``paths`` that have one."""
    found = ((path, session.version(side.oid(path))) for path in paths)
    return {path: version for path, version in found if version is not None}


def paths_of(found: Mapping[str, Changes]) -> Iterator[str]:
    """The files of what :func:`changed` found."""
    for path, item in found.items():
        yield from item.paths if isinstance(item, ModelChanges) else (path,)
        if item.old_path:
            yield item.old_path


def shards_at(session: Session, revision: str, name: str) -> dict[str, Manifest]:
    """Path -> manifest of the shards in ``revision`` of the model that would be ``name`` in one file."""
    found = session.at(revision)
    return {path: session.manifest(found[path].oid) for path in shards_of(name, found)}


def shards_of(name: str, paths: Iterable[str]) -> list[str]:
    """The shards among ``paths`` of the model that would be ``name`` in one file."""
    return [path for path in paths if model_of(path) == name and path != name]
