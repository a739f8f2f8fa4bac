"""The sources of ``theta convert``, ``export`` and ``cat``: files, and checkpoints of a revision."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from theta import _fs, _room, formats
from theta.errors import (
    CorruptError,
    FormatError,
    MissingObjectsError,
    NewerFormatError,
    NotFoundError,
    UsageError,
    concerning,
)
from theta.formats import opaque, safetensors, sharded
from theta.formats.layout import Source, clip
from theta.formats.values import Value, values
from theta.git import object_values
from theta.git.object_values import TreePath
from theta.porcelain.tensors import converting
from theta.porcelain.tensors.converting import Model
from theta.porcelain.workspace.checkpoints import shards_of
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Manifest
from theta.store.read.coming_file import ComingFile
from theta.store.read.random_access import StoredSource
from theta.store.read.reassembly import Restorer

Opener = Callable[[str], tuple[Source, formats.Layout]]
"""Opens a file by its name in one directory or tree; returns its bytes and its layout."""


@dataclass(frozen=True)
class Named:
    """The parts of ``[REV:]PATH[#GLOB]``; ``revision`` is None for a file, "" for the index."""

    revision: str | None
    path: str
    glob: str = ""


def parse(text: str, cwd: Path) -> Named:
    """Parse ``text``; an existing path takes precedence, even if it contains ":" or "#".

    The path of a committed file is from the root then, as :meth:`Session.tree_path` returns it.
    """
    if os.path.lexists(cwd / text):
        return Named(None, text)
    head, _, glob = text.partition("#")
    if os.path.lexists(cwd / head):
        return Named(None, head, glob)
    place = object_values.tree_path(head)
    if place is None or not place.path:
        if (cwd / (head + sharded.SUFFIX)).is_file():
            return Named(None, head + sharded.SUFFIX, glob)
        if _shards_of(cwd / head):
            return Named(None, head, glob)
        raise NotFoundError(f"{text}: no such file", hint="a committed checkpoint is named REV:PATH")
    place = Session.here(cwd).tree_path(head) if place.is_relative else place
    assert place is not None
    return Named(place.revision, place.path, glob)


@contextlib.contextmanager
def opened(named: Named, cwd: Path, read: str = "") -> Iterator[Model]:
    """Return a context manager of the tensors that ``named`` names.

    In a partial clone, ``read`` limits the fetch to the tensor of that name.
    Raises :class:`NotFoundError`, and :class:`FormatError` if no reader finds tensors.
    """
    with contextlib.ExitStack() as stack:
        if named.revision is None:
            model = of_file(cwd / named.path, stack)
        else:
            with concerning(f"{named.revision}:{named.path}"):
                model = of_revision(Session.here(cwd), named.revision, named.path, read or named.glob or "*")
        with concerning(named.path, CorruptError, MissingObjectsError, NewerFormatError):
            yield model.select(named.glob) if named.glob else model


def manifest_at(session: Session, revision: str, path: str) -> Manifest:
    """Return the checkpoint at ``path`` of ``revision``; raises :class:`NotFoundError`."""
    found = manifest_or_none(session, revision, path)
    if found is None:
        raise _no_checkpoint(path, revision)
    return found


def _no_checkpoint(path: str, revision: str) -> NotFoundError:
    return NotFoundError(f"there is no checkpoint {path} in {TreePath(revision, path).where}")


def copy_exactly(
    session: Session, manifest: Manifest, out: Path, *, force: bool, progress: Progress | None = None
) -> None:
    """Write the committed file to ``out``, byte for byte."""
    converting.check_places([out], 0, force)
    session.objects.expect(manifest.trees())
    restorer = Restorer(session.objects, manifest)
    _room.require(out.parent, restorer.size)
    with _fs.AtomicFile(out, mode=0o666, nameless=True) as file:
        begin(progress, "exporting", manifest.nbytes, out.name)
        restorer.write(ComingFile(file, manifest.skeleton, restorer.plan), progress)


def manifest_or_none(session: Session, revision: str, path: str) -> Manifest | None:
    """Return the checkpoint at ``path`` of ``revision`` ("" is the index), or None."""
    oid = session.repo.file_at(TreePath(revision, path))
    return None if oid is None else session.manifest_or_none(oid)


def of_file(path: Path, stack: contextlib.ExitStack) -> Model:
    """Return the tensors of the file at ``path``, or of its shards, which ``stack`` closes.

    Raises the errors of :func:`opened`.
    """
    sources: list[FileSource] = []

    def open_shard(name: str) -> tuple[Source, formats.Layout]:
        sources.append(stack.enter_context(FileSource(path.with_name(name), name)))
        return sources[-1], _tensors(sources[-1], name)

    def verify() -> None:
        for source in sources:
            source.verify_unchanged()

    if path.name.endswith(sharded.SUFFIX):
        with FileSource(path) as source:
            index = sharded.read_index(source.read(0, min(source.size, sharded.MAX_INDEX + 1)))
        model = _joined(index.shards, index.weight_map, open_shard)
    elif path.exists():
        model = _single(*open_shard(path.name))
    elif shards := _shards_of(path):
        model = _joined(shards, {}, open_shard)
    else:
        raise NotFoundError(f"{path.name}: no such file", hint="a committed checkpoint is named REV:PATH")
    return replace(model, verify=verify)


def _shards_of(path: Path) -> list[str]:
    """Return the names of the shards of the model that ``path`` would be as one file."""
    names = (item.name for item in path.parent.glob("*-of-*")) if path.parent.is_dir() else ()
    return sorted(name for name in names if name != path.name and sharded.model_of(name) == path.name)


def of_revision(session: Session, revision: str, path: str, glob: str) -> Model:
    """Return the tensors of the checkpoint at ``path`` of ``revision`` ("" is the index).

    A partial clone fetches those whose names match ``glob``.  Raises the errors of :func:`opened`.
    """
    folder = path.rpartition("/")[0]

    def open_shard(name: str) -> tuple[Source, formats.Layout]:
        manifest = manifest_at(session, revision, f"{folder}/{name}" if folder else name)
        return _stored(session, manifest, name, glob)

    if manifest_or_none(session, revision, path) is not None:
        return _single(*open_shard(path.rpartition("/")[2]))
    index = _index(session, revision, path)
    if index is not None:
        return _joined(index.shards, index.weight_map, open_shard)
    place = TreePath(revision, path)
    shards = shards_of(path, session.index if place.is_staged else session.at(revision))
    if not shards:
        raise _no_checkpoint(path, revision)
    return _joined([name.rpartition("/")[2] for name in sorted(shards)], {}, open_shard)


def of_manifest(session: Session, manifest: Manifest, name: str) -> Model:
    """Return the tensors of the checkpoint of ``manifest``; raises :class:`FormatError` if opaque."""
    return _single(*_stored(session, manifest, name, ""))


def _stored(
    session: Session, manifest: Manifest, name: str, glob: str
) -> tuple[StoredSource, formats.Layout]:
    """Return the stored file and its layout; announce that tensors matching ``glob`` will be read."""
    if manifest.format == opaque.NAME:
        raise FormatError(f"{name} was committed as plain bytes; there are no tensors to take")
    names = (line.name for line in manifest.lines)
    skipped = {name for name in names if name != glob and not fnmatchcase(name, glob)}
    session.objects.expect(manifest.trees(skipped))
    source = StoredSource(session.objects, manifest, exact=False)
    try:
        return source, formats.scan_as(manifest.format, source)
    except FormatError:
        # The format needs a plug-in or a second file: use the stored layout.
        return source, source.layout


def _index(session: Session, revision: str, path: str) -> sharded.ShardIndex | None:
    """Return the shard index at ``path``, or that of the model that ``path`` would be as one file."""
    name = path if path.endswith(sharded.SUFFIX) else path + sharded.SUFFIX
    oid = session.repo.file_at(TreePath(revision, name))
    return None if oid is None else sharded.read_index(session.repo.read_blob(oid))


def _tensors(source: Source, name: str) -> formats.Layout:
    layout, reason = formats.scan_or_opaque(source)
    if layout.format == opaque.NAME:
        raise FormatError(f"{name}: {reason or 'no reader knows this file'}; there are no tensors to take")
    return layout


def _single(source: Source, layout: formats.Layout) -> Model:
    found = values(layout, source)
    return Model(found, frozenset({layout.format}), _metadata(source, layout), source=source)


def _metadata(source: Source, layout: formats.Layout) -> dict[str, str]:
    if layout.format != safetensors.NAME:
        return {}
    length = int.from_bytes(source.read(0, 8), "little")
    return safetensors.read_metadata(source.read(0, 8 + length)) or {}


def _joined(shards: Sequence[str], weight_map: Mapping[str, str], open_shard: Opener) -> Model:
    """Return the tensors of all ``shards``; ``weight_map`` decides between two of the same name."""
    found: dict[str, Value] = {}
    kinds: set[str] = set()
    metadata: dict[str, str] = {}
    for shard in shards:
        source, layout = open_shard(shard)
        kinds.add(layout.format)
        metadata |= _metadata(source, layout)
        for name, value in values(layout, source).items():
            if weight_map.get(name, shard) != shard:
                continue
            if name in found:
                raise FormatError(f"two shards have a tensor {clip(name)}")
            found[name] = value
    missing = sorted(weight_map.keys() - found.keys())
    if missing:
        raise FormatError(f"the index names {len(missing)} tensors that no shard has: {clip(missing[0])}")
    return Model(found, frozenset(kinds), metadata)


def parse_size(text: str) -> int:
    """Parse a number of bytes; kB, MB and GB are powers of 1000.  Raises :class:`UsageError`."""
    units = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
    number = text.rstrip("BGKMbgkm")
    unit, digits = units.get(text[len(number) :].upper()), number.strip()
    if unit is None or not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 10**9:
        raise UsageError(f"{text!r} is no size", hint="say a number of bytes, or such as 500MB or 5GB")
    return int(digits) * unit
