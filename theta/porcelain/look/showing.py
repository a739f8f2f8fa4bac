"""``theta show``: look up a commit, the files of a commit, a checkpoint or a tensor by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from theta.errors import NotFoundError, UsageError, concerning, no_tensor
from theta.git import object_values
from theta.git.object_values import TreePath, differing
from theta.git.quoting import split_lines
from theta.git.repository import STORES
from theta.git.run import Git
from theta.lazy import Module
from theta.porcelain.look import describing, diffing
from theta.porcelain.look.describing import Description
from theta.porcelain.look.diffing import Compared, Sides
from theta.porcelain.workspace.checkpoints import shards_of
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest
from theta.store.read.tensor_records import record_of
from theta.units import as_counted

if TYPE_CHECKING:
    from theta.porcelain.look import adapter_updates
    from theta.porcelain.look.adapter_updates import ModuleUpdate
else:
    adapter_updates = Module("theta.porcelain.look.adapter_updates")


@dataclass(frozen=True)
class ShownCommit:
    """A commit, the checkpoints it changed, and by path the updates of adapters among these."""

    oid: str
    changed: tuple[Compared, ...]
    modules: Mapping[str, Sequence[ModuleUpdate]] = field(default_factory=dict)


@dataclass(frozen=True)
class ShownFiles:
    """The files and directories of a commit, as ``git show`` lists them."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class ShownCheckpoint:
    """A checkpoint or a sharded model.

    Attributes:
        path: its path.
        form: its format, or "N files" for a model.
        tensors: its tensors.
        nbytes: its size in bytes.
        modules: the updates of an adapter.
    """

    path: str
    form: str
    tensors: tuple[Line, ...]
    nbytes: int
    modules: Sequence[ModuleUpdate] = ()


@dataclass(frozen=True)
class ShownTensor:
    """A stored tensor: its number of chunks, the codecs of its layers, and its stored bytes."""

    line: Line
    chunks: int
    codecs: tuple[str, ...]
    stored: int


@dataclass(frozen=True)
class _Name:
    """``REV:PATH`` or ``REV:PATH#TENSOR``; ``text`` is it as it was written, ``place`` from the root."""

    text: str
    place: TreePath
    tensor: str

    @property
    def revision(self) -> str:
        return self.place.revision

    @property
    def path(self) -> str:
        return self.place.path

    @property
    def label(self) -> str:
        return str(self.place)


def _parsed(session: Session, text: str) -> _Name | None:
    """Parse ``text``; None when it names no file of a version.  A tensor's name may have any characters."""
    written = object_values.tree_path(text)
    if written is None:
        return None
    path, _, tensor = written.path.partition("#")
    place = session.tree_path(text[: len(text) - len(written.path)] + path)
    return None if place is None else _Name(text, place, tensor)


def find(session: Session, name: str) -> ShownCommit | ShownFiles | ShownCheckpoint | ShownTensor | None:
    """Look up ``name``; None when ``git show`` alone shows all of it."""
    git = session.repo.git().in_directory(session.cwd)
    if (parsed := _parsed(session, name)) is not None:
        return _object(session, git, parsed)
    done = git.run("rev-parse", "-q", "--verify", "--end-of-options", f"{name}^{{commit}}", check=False)
    if done.code:
        return None
    shown = commit(session, done.text.strip())
    return shown if shown.changed else None


def commit(session: Session, oid: str) -> ShownCommit:
    """Return what commit ``oid`` changed in checkpoints."""
    found = diffing.of_commit(session, oid)
    sides = Sides(f"{oid}^1", oid)
    adapters = (item for item in found if any(diffing.module_of(one.name) for one in item.changes.tensors))
    modules = {item.path: adapter_updates.changed(session, sides, item) for item in adapters}
    return ShownCommit(oid, tuple(found), modules)


def touches_files(session: Session, shown: ShownCommit) -> bool:
    """Return whether a commit differs from its first parent in other files than the checkpoints shown."""
    parent = diffing.parent_of(session, shown.oid)
    old = session.repo.tree_of(parent) if parent is not None else None
    found = differing(old, session.repo.tree_of(shown.oid), STORES)
    return not {path for path, _ in found} <= {path for item in shown.changed for path in item.paths}


def has_adapters(session: Session) -> bool:
    """Return whether HEAD has a checkpoint with factors of an adapter."""
    head = session.repo.head()
    found = session.at(head).manifests.values() if head is not None else ()
    return any(diffing.module_of(line.name) is not None for manifest in found for line in manifest.lines)


def _object(session: Session, git: Git, name: _Name) -> ShownFiles | ShownCheckpoint | ShownTensor | None:
    if not name.path and not name.place.is_staged:  # REV:, or REV:./ at the root
        session.repo.tree_of(name.revision)
        listed = split_lines(git.run("show", name.text).text)
        return ShownFiles(tuple(line for line in listed if line != f"{STORES}/"))
    oid = session.repo.file_at(name.place)
    if oid is None:
        return _model(session, name)
    if (error := session.malformed(oid)) is not None:
        error.concern(name.label)
        raise error
    manifest = session.manifest_or_none(oid)
    if manifest is None:
        return None
    if name.tensor:
        with concerning(name.label):
            return _tensor(session, manifest, name.tensor)
    modules: Sequence[ModuleUpdate] = ()
    if any(diffing.module_of(line.name) for line in manifest.lines):
        side = "" if name.place.is_staged else name.revision
        modules = adapter_updates.stored(session, side, name.path, manifest.by_name)
    return ShownCheckpoint(name.path, manifest.format, manifest.lines, manifest.nbytes, modules)


def _model(session: Session, name: _Name) -> ShownCheckpoint | ShownTensor | None:
    """Look up a sharded model by the name it would have as one file."""
    shards = _shards_at(session, name.place)
    every = (line for one in shards.values() for line in one.lines)
    lines = sorted(every, key=lambda line: as_counted(line.name))
    if not lines:
        return None
    if name.tensor:
        holders = (manifest for manifest in shards.values() if name.tensor in manifest.by_name)
        if (holder := next(holders, None)) is None:
            raise no_tensor(name.tensor, [line.name for line in lines])
        return _tensor(session, holder, name.tensor)
    size = sum(line.nbytes for line in lines)
    return ShownCheckpoint(name.path, f"{len(shards)} files", tuple(lines), size)


def _tensor(session: Session, manifest: Manifest, name: str) -> ShownTensor:
    line = manifest.by_name.get(name)
    if line is None:
        raise no_tensor(name, manifest.by_name)
    session.objects.expect({line.tree: line.nbytes})
    record = record_of(session.objects, line)
    stored = sum(len(session.objects.chunk(oid)) for oid in record.files.values())
    return ShownTensor(line, len(record.chunks), tuple(layer.codec for layer in record.layers), stored)


def codecs(session: Session, text: str) -> list[Description]:
    """Describe how the tensors of ``REV:PATH``, or the one of ``REV:PATH#TENSOR``, are stored."""
    name = _parsed(session, text)
    if name is None:
        raise UsageError(f"{text} is not REV:PATH")
    oid = session.repo.file_at(name.place)
    with concerning(name.label):
        one = session.manifest_or_none(oid) if oid is not None else None
    shards = _shards_at(session, name.place) if oid is None else {}
    manifests = [one] if one is not None else list(shards.values())
    with concerning(name.label):
        found = [
            item for manifest in manifests for item in describing.describe(session, manifest, name.tensor)
        ]
    if not manifests:
        raise NotFoundError(f"there is no checkpoint {name.path}")
    if not found and name.tensor:
        raise no_tensor(name.tensor, [line.name for one in manifests for line in one.lines])
    return found


def _shards_at(session: Session, place: TreePath) -> dict[str, Manifest]:
    """Return path -> manifest of the shards of the model that is ``place`` as one file."""
    found = session.index.readable if place.is_staged else session.at(place.revision)
    return {path: session.manifest(found[path].oid) for path in shards_of(place.path, found)}
