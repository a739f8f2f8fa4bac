"""Where ``theta convert``, ``export`` and ``cat`` take tensors from: files, and any revision."""

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
from theta.git.object_values import MODE_BLOB
from theta.porcelain.tensors import converting
from theta.porcelain.tensors.converting import Model
from theta.porcelain.workspace import sharded_models
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Manifest
from theta.store.read.random_access import StoredSource
from theta.store.read.reassembly import Restorer

Opener = Callable[[str], tuple[Source, formats.Layout]]
"""The bytes and the layout of the file of a name, in one folder or tree."""


@dataclass(frozen=True)
class Named:
    """``[REV:]PATH[#GLOB]`` taken apart; ``revision`` is none for a file."""

    revision: str | None
    path: str
    glob: str = ""


def parse(text: str, cwd: Path) -> Named:
    """What ``text`` names; a file that exists is a file, whatever its name."""
    if os.path.lexists(cwd / text):
        return Named(None, text)
    head, _, glob = text.partition("#")
    if os.path.lexists(cwd / head):
        return Named(None, head, glob)
    revision, colon, path = head.partition(":")
    if not colon or not path:
        if (cwd / (head + sharded.SUFFIX)).is_file():
            return Named(None, head + sharded.SUFFIX, glob)
        if _shards_of(cwd / head):
            return Named(None, head, glob)
        raise NotFoundError(f"{text}: no such file", hint="a committed checkpoint is named REV:PATH")
    return Named(revision or "HEAD", path, glob)


@contextlib.contextmanager
def opened(named: Named, cwd: Path, read: str = "") -> Iterator[Model]:
    """The tensors that ``named`` names, to be read inside the block; or only the one named ``read``.

    Raises :class:`NotFoundError`, and :class:`FormatError` where no reader finds tensors.
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
    """The checkpoint at ``path`` of ``revision``; raises :class:`NotFoundError`."""
    found = manifest_or_none(session, revision, path)
    if found is None:
        raise _no_checkpoint(path, revision)
    return found


def _no_checkpoint(path: str, revision: str) -> NotFoundError:
    return NotFoundError(f"there is no checkpoint {path} in {revision or 'the index'}")


def copy_exactly(
    session: Session, manifest: Manifest, out: Path, *, force: bool, progress: Progress | None = None
) -> None:
    """Write the very file that was committed to ``out``."""
    converting.check_places([out], 0, force)
    session.objects.expect(manifest.trees())
    restorer = Restorer(session.objects)
    _room.require(out.parent, restorer.size(manifest))
    with _fs.AtomicFile(out, mode=0o666, nameless=True) as file:
        begin(progress, "exporting", manifest.nbytes, out.name)
        restorer.write(manifest, file, progress)


def manifest_or_none(session: Session, revision: str, path: str) -> Manifest | None:
    """The checkpoint at ``path`` of ``revision`` ("" is the index), if there is one."""
    oid = _file_at(session, revision, path)
    return None if oid is None else session.manifest_or_none(oid)


def _file_at(session: Session, revision: str, path: str) -> str | None:
    """The blob at ``path`` of ``revision`` or of the index; raises :class:`NotFoundError` for a conflict."""
    if revision:
        entry = session.repo.tree_of(revision).get(path)
        return entry.id if entry is not None and entry.mode & MODE_BLOB == MODE_BLOB else None
    found = {entry.stage: entry.oid for entry in session.repo.entries() if entry.path == path}
    if found and 0 not in found:
        raise NotFoundError(f"{path} is in conflict", hint="'theta resolve' settles it")
    return found.get(0)


def of_file(path: Path, stack: contextlib.ExitStack) -> Model:
    """The tensors of the file at ``path``, or of its shards; they are open as long as ``stack`` is.

    Raises as :func:`opened`.
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
        raise NotFoundError(f"{path.name}: no such file")
    return replace(model, verify=verify)


def _shards_of(path: Path) -> list[str]:
    """The shards beside ``path`` of the model that it would be in one file."""
    names = (item.name for item in path.parent.glob("*-of-*")) if path.parent.is_dir() else ()
    return sorted(name for name in names if name != path.name and sharded.model_of(name) == path.name)


def of_revision(session: Session, revision: str, path: str, glob: str) -> Model:
    """The tensors of the checkpoint at ``path`` of ``revision``, or of the index where that is "".

    Those whose names match ``glob`` are going to be read; raises as :func:`opened`.
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
    shards = sharded_models.shards_of(path, session.at(revision) if revision else session.index)
    if not shards:
        raise _no_checkpoint(path, revision)
    return _joined([name.rpartition("/")[2] for name in sorted(shards)], {}, open_shard)


def of_manifest(session: Session, manifest: Manifest, name: str) -> Model:
    """The tensors of the checkpoint that ``manifest`` stands for; raises :class:`FormatError` if opaque."""
    return _single(*_stored(session, manifest, name, ""))


def _stored(
    session: Session, manifest: Manifest, name: str, glob: str
) -> tuple[StoredSource, formats.Layout]:
    """The stored file and its layout; the tensors whose names match ``glob`` are going to be read."""
    if manifest.format == opaque.NAME:
        raise FormatError(f"{name} was committed as plain bytes; there are no tensors to take")
    names = (line.name for line in manifest.lines)
    skipped = {name for name in names if name != glob and not fnmatchcase(name, glob)}
    session.objects.expect(manifest.trees(skipped))
    source = StoredSource(session.objects, manifest, exact=False)
    try:
        return source, formats.scan_as(manifest.format, source)
    except FormatError:
        # What needs a plug-in, or a file beside it, is known by the extents that were stored.
        return source, source.layout


def _index(session: Session, revision: str, path: str) -> sharded.ShardIndex | None:
    """The index at ``path``, or of the sharded model that ``path`` would be in one file."""
    name = path if path.endswith(sharded.SUFFIX) else path + sharded.SUFFIX
    oid = _file_at(session, revision, name)
    return None if oid is None else sharded.read_index(session.repo.read_blob(oid))


def _tensors(source: Source, name: str) -> formats.Layout:
    layout, reason = formats.scan_or_opaque(source)
    if layout.format == opaque.NAME:
        raise FormatError(f"{name}: {reason or 'no reader knows this file'}; there are no tensors to take")
    return layout


def _single(source: Source, layout: formats.Layout) -> Model:
    return Model(values(layout, source), frozenset({layout.format}), _metadata(source, layout))


def _metadata(source: Source, layout: formats.Layout) -> dict[str, str]:
    if layout.format != safetensors.NAME:
        return {}
    length = int.from_bytes(source.read(0, 8), "little")
    return safetensors.read_metadata(source.read(0, 8 + length)) or {}


def _joined(shards: Sequence[str], weight_map: Mapping[str, str], open_shard: Opener) -> Model:
    """The tensors of all ``shards``; where two have one of a name, ``weight_map`` says which counts."""
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
    """The bytes that ``text`` means: a number, with kB, MB or GB (powers of 1000) behind it or not."""
    units = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
    digits = text.rstrip("BGKMbgkm")
    unit = units.get(text[len(digits) :].upper())
    if unit is None or not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 10**9:
        raise UsageError(
            f"{text!r} is no size of a shard", hint="say a number of bytes, or such as 500MB or 5GB"
        )
    return int(digits) * unit
