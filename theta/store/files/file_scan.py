"""A file before it is stored: its layout, and the digests of its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from theta import formats
from theta.formats import opaque
from theta.formats.layout import Layout, Source, Tensor, Window
from theta.parallel import ordered
from theta.progress import Progress
from theta.store.format import skeleton as skeletons
from theta.store.format import tensor_tree
from theta.store.format.manifest import MAX_LISTED, Manifest
from theta.store.format.names import escape_line
from theta.store.format.skeleton import Skeleton
from theta.store.format.tensor_tree import Chunk

_LINE_BYTES: Final = 160


@dataclass(frozen=True)
class Parts:
    """A file taken apart: where its tensors are, and all of its other bytes."""

    layout: Layout
    skeleton: Skeleton
    note: str = ""

    @property
    def known(self) -> Mapping[str, tuple[Chunk, ...]]:
        """Tensor name -> its chunks, of those that are hashed."""
        return {}


@dataclass(frozen=True)
class Scan(Parts):
    """A file taken apart and hashed, nothing stored: the chunks of each tensor."""

    chunks: tuple[tuple[Chunk, ...], ...] = ()

    @property
    def known(self) -> Mapping[str, tuple[Chunk, ...]]:
        """Tensor name -> its chunks, of all tensors."""
        names = (tensor.name for tensor in self.layout.tensors)
        return dict(zip(names, self.chunks, strict=True))

    def digests(self) -> dict[str, str]:
        """Return tensor name -> digest of its value."""
        return {
            tensor.name: tensor_tree.value_digest(tensor.dtype, tensor.shape, chunks)
            for tensor, chunks in zip(self.layout.tensors, self.chunks, strict=True)
        }

    def equals(self, manifest: Manifest, kept: Skeleton | None) -> bool:
        """Return whether the file is byte for byte the one of ``manifest`` (with skeleton ``kept``)."""
        return describes(manifest, kept, self, self.digests())


def describes(manifest: Manifest, kept: Skeleton | None, parts: Parts, digests: Mapping[str, str]) -> bool:
    """Return whether ``manifest`` (with skeleton ``kept``) is of the file with these parts and values."""
    if kept is None or parts.skeleton != kept:
        return False
    return digests == {line.name: line.digest for line in manifest.lines}


def scan(
    source: Source, known: Manifest | None, kept: Skeleton | None, progress: Progress | None = None
) -> Scan:
    """Take ``source`` apart, as :func:`take_apart` does, and hash every chunk."""
    parts = take_apart(source, known, kept, progress)
    return parts if isinstance(parts, Scan) else _hashed(source, parts, progress)


def loses_tensors(before: str, after: str) -> bool:
    """Return whether a file of container ``after`` is one value of bytes, and was a checkpoint ``before``."""
    return after == opaque.NAME != before


def take_apart(
    source: Source, known: Manifest | None, kept: Skeleton | None, progress: Progress | None = None
) -> Parts:
    """Find the tensors of ``source``; hash them only if that is needed to find them.

    The extents of ``known`` are used where its skeleton ``kept`` still fits, so that a newer
    parser never rewrites the manifest of a file that did not change.
    """
    if known is not None and kept is not None and _fits(known, kept, source):
        return Parts(kept.layout(known.format, known.by_name), kept)
    if known is not None and known.format == opaque.NAME:
        same = _hashed(source, _parts(source, opaque.scan(source)), progress)
        if same.equals(known, kept):
            return same
    layout, note = formats.scan_or_opaque(source)
    if _listing(layout) > MAX_LISTED:
        layout, note = opaque.scan(source), f"{len(layout.tensors)} tensors do not fit into one manifest"
    if not skeletons.holds(layout):
        layout, note = opaque.scan(source), "what is not a tensor is too large to be kept apart"
    return _parts(source, layout, note)


def _parts(source: Source, layout: Layout, note: str = "") -> Parts:
    return Parts(layout, skeletons.from_layout(layout, source), note)


def _hashed(source: Source, parts: Parts, progress: Progress | None) -> Scan:
    return Scan(parts.layout, parts.skeleton, parts.note, _chunks(source, parts.layout, progress))


def _listing(layout: Layout) -> int:
    """Return a bound of the bytes of these tensors' lines."""
    lengths = (len(escape_line(t.name).encode()) + 4 * len(t.shape) * 5 for t in layout.tensors)
    return sum(2 * length + _LINE_BYTES for length in lengths)


def _fits(known: Manifest, kept: Skeleton, source: Source) -> bool:
    if known.format == opaque.NAME or {name for name, _, _ in kept.extents()} != set(known.by_name):
        return False
    lengths = {line.name: line.nbytes for line in known.lines}
    return all(lengths[name] == length for name, _, length in kept.extents()) and kept.matches(source)


def pieces(source: Source, tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of each chunk of ``tensor`` in the file."""
    offset = tensor.offset
    for length in _cuts(source, tensor):
        yield offset, length
        offset += length


def _cuts(source: Source, tensor: Tensor) -> Iterable[int]:
    if tensor.dtype == "bytes":
        return opaque.cut(Window(source, tensor.offset, tensor.length))
    return tensor_tree.chunk_lengths(tensor.dtype, tensor.shape)


def _chunks(source: Source, layout: Layout, progress: Progress | None) -> tuple[tuple[Chunk, ...], ...]:
    found: list[list[Chunk]] = [[] for _ in layout.tensors]

    def work(piece: tuple[int, int, int]) -> tuple[int, Chunk]:
        number, offset, length = piece
        return number, Chunk.of(source.read(offset, length))

    listed = (
        (number, offset, length)
        for number, tensor in enumerate(layout.tensors)
        for offset, length in pieces(source, tensor)
    )
    for number, chunk in ordered(work, listed):
        found[number].append(chunk)
        if progress is not None:
            progress(chunk.length)
    return tuple(map(tuple, found))
