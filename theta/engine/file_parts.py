"""A part of the tensors of a file, stored by a worker into a pack of its own.

No byte of a tensor passes between processes: a worker reads the file where it lies, and writes a pack into
the repository, which it shares with the process that asked.  A worker that dies leaves a temporary, or a pack
that nothing names; so a part may be stored twice, and what comes out is the same.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from theta import parallel
from theta.engine.workplace import Workplace
from theta.errors import ChangedWhileReadError
from theta.formats.layout import Layout, Tensor
from theta.git.repository import Repository
from theta.store.files.file_scan import Parts
from theta.store.files.file_source import FileSource
from theta.store.format import listings
from theta.store.format import manifest as manifests
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Skeleton
from theta.store.format.tensor_tree import Chunk
from theta.store.odb.objects import Objects
from theta.store.write.guidance import Guidance, Searched
from theta.store.write.snapshot import Snapshot


@dataclass(frozen=True)
class CommonPart:
    """Files and manifests that all parts have in common; nothing in it is large.

    Attributes:
        workplace: the repository.
        file: the checkpoint, as every worker sees it.
        size: its bytes.
        mtime_ns: its time.
        store: the name of the store of the checkpoint.
        kept: the manifest in the index, or "".
        bases: the manifests of the parents.
    """

    workplace: Workplace
    file: str
    size: int
    mtime_ns: int
    store: str
    kept: str
    bases: tuple[str, ...]


@dataclass(frozen=True)
class FilePart:
    """Some tensors of a file.

    Attributes:
        place: where they are, and where they go.
        tensors: their extents, in the order of the file.
        guidance: what is known of the tensors before them.
        expected: name -> chunks, of those that were hashed already.
    """

    place: CommonPart
    tensors: tuple[Tensor, ...]
    guidance: Guidance
    expected: Mapping[str, tuple[Chunk, ...]] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Raw bytes."""
        return sum(tensor.length for tensor in self.tensors)


@dataclass(frozen=True)
class StoredPart:
    """A part that was stored.

    Attributes:
        lines: the lines of the manifest, in the order of the tensors.
        new: the names of those whose value was new.
        packs: the names of the packs that are kept for the owner, without a suffix; at most one.
        nbytes: their bytes.
        searched: what the comparisons with bases found.
    """

    lines: tuple[Line, ...]
    new: tuple[str, ...]
    packs: tuple[str, ...]
    nbytes: int
    searched: Searched


def store(part: FilePart) -> StoredPart:
    """Store ``part``; its pack is durable, and kept from ``git repack``, when this returns.

    Raises:
        theta.errors.ChangedWhileReadError: the file is not the one that was taken apart.
        theta.errors.UsageError: this process runs another version of theta.
    """
    with parallel.limited(1):  # the executor runs as many parts as there are cores
        return _stored(part)


def _stored(part: FilePart) -> StoredPart:
    place = part.place
    objects = place.workplace.opened()
    bases = [manifest_of(place.workplace.repository, oid) for oid in place.bases]
    kept = manifest_of(place.workplace.repository, place.kept) if place.kept else None
    with (
        FileSource(Path(place.file), os.path.basename(place.file)) as source,
        objects.writer(keep=True) as pack,
    ):
        if (source.size, source.stat.st_mtime_ns) != (place.size, place.mtime_ns):
            raise ChangedWhileReadError(f"{source.label} changed while it was read; nothing was stored")
        found = _Expected(Layout("", source.size, part.tensors), Skeleton((), b""), "", part.expected)
        snapshot = Snapshot(objects, pack, bases)
        made = snapshot.tensors(source, found, place.store, kept, guidance=part.guidance)
        size = pack.size
    return StoredPart(tuple(made.lines), tuple(made.new), objects.keeps.names, size, made.searched)


@dataclass(frozen=True)
class _Expected(Parts):
    """Some tensors of a file, with the chunks of those that are hashed."""

    hashed: Mapping[str, tuple[Chunk, ...]] = field(default_factory=dict)

    @property
    def known(self) -> Mapping[str, tuple[Chunk, ...]]:
        """Tensor name -> its chunks."""
        return self.hashed


@functools.lru_cache(64)
def manifest_of(repository: str, oid: str) -> Manifest:
    """Return the manifest in blob ``oid``; a worker that has parsed it does not do so for each part."""
    objects = Objects(Repository.discover(repository))
    return listings.read(objects, objects.text(oid, manifests.MAX_BYTES))
