"""Locating possible pickles in a file: the file itself, members of archives, arrays of objects.

The archives are zip (also several concatenated ones), tar, and the compressors of joblib and pickle users.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from theta.formats import npy
from theta.formats.archives import tarred, zipped
from theta.formats.layout import BytesSource, Source, Window
from theta.formats.torch import torch_tar

Part = tuple[str, Source, int]
"""The name of the part ('' for the file itself), its bytes, and the offset at which a pickle may start."""

MAX_INFLATED: Final = 24 * 2**20
MAX_ARCHIVES: Final = 100_000
_MAX_NESTING: Final = 3
_PIECE: Final = 2**16
_PROTOCOLS: Final = frozenset(bytes([0x80, number]) for number in range(1, 6))
_COMPRESSED: Final[tuple[tuple[bytes, Callable[[], Any]], ...]] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"\x78\x01", zlib.decompressobj),
    (b"\x78\x5e", zlib.decompressobj),
    (b"\x78\x9c", zlib.decompressobj),
    (b"\x78\xda", zlib.decompressobj),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ", lambda: lzma.LZMADecompressor(memlimit=MAX_INFLATED)),
    (b"\x5d\x00\x00", lambda: lzma.LZMADecompressor(memlimit=MAX_INFLATED)),
)


def has_protocol(source: Source, start: int) -> bool:
    """Return whether there is a PROTO opcode at ``start``."""
    return source.size >= start + 2 and source.read(start, 2) in _PROTOCOLS


def parts(source: Source, where: str = "", depth: int = 0) -> Iterator[Part]:
    """Yield the places of ``source`` where pickles may start; raises ``FormatError`` for a bad archive."""
    if depth < _MAX_NESTING and zipped.first_name(source):
        yield from _zip_parts(source, where, depth)
    elif depth < _MAX_NESTING and tarred.detect(source):
        yield from _tar_parts(source, where, depth)
    elif npy.detect(source):
        yield from _npy_parts(source, where)
    elif depth < _MAX_NESTING and (inflated := _inflated(source)) is not None:
        yield from parts(inflated, where, depth + 1)
    elif source.size:
        yield where, source, 0


def _joined(where: str, name: str) -> str:
    return f"{where}!{name}" if where else name


def _tar_parts(source: Source, where: str, depth: int) -> Iterator[Part]:
    for member in tarred.read_members(source):
        name = _joined(where, member.name)
        content = Window(source, member.payload, member.size)
        if member.name in torch_tar.STREAMS:
            yield from ((name, content, start) for start in torch_tar.pickle_starts(content, member.name))
        elif member.name == torch_tar.OBJECTS or _may_hold_pickle(content, member.name):
            yield from parts(content, name, depth + 1)


def _npy_parts(source: Source, where: str) -> Iterator[Part]:
    head = source.read(0, min(source.size, 12))
    prefix = 10 if head[6] == 1 else 12
    start = prefix + int.from_bytes(head[8:prefix], "little")
    if start < source.size and b"'|O'" in source.read(prefix, min(start - prefix, 4096)):
        yield where, source, start


def _zip_parts(source: Source, where: str, depth: int) -> Iterator[Part]:
    # torch's distributed checkpoints are several archives.
    archives: Sequence[Source] = zipped.archives(source, MAX_ARCHIVES) or [source]
    for number, archive in enumerate(archives):
        outer = _joined(where, f"#{number}") if len(archives) > 1 else where
        for member in zipped.read_members(archive):
            content = _content(archive, member)
            if content is not None:
                yield from parts(content, _joined(outer, member.name), depth + 1)


def _content(source: Source, member: zipped.ZipMember) -> Source | None:
    """Return the content of a member if it may be a pickle; None for storages and the like."""
    content: Source = Window(source, member.payload, member.size)
    if not member.stored:
        try:
            content = _unpacked(content, zlib.decompressobj(-15))
        except zlib.error:
            return None
    return content if _may_hold_pickle(content, member.name) else None


def _inflated(source: Source) -> Source | None:
    """Return the first 24 MiB of the content of a compressed file; None for other files."""
    head = source.read(0, min(6, source.size))
    for magic, make in _COMPRESSED:
        if head.startswith(magic):
            try:
                return _unpacked(source, make())
            except (zlib.error, OSError, lzma.LZMAError, EOFError):
                return None
    return None


def _unpacked(source: Source, inflater: Any) -> BytesSource:
    pieces: list[bytes] = []
    room, at = MAX_INFLATED, 0
    while at < source.size and room > 0 and not inflater.eof:
        piece = source.read(at, min(_PIECE, source.size - at))
        pieces.append(inflater.decompress(piece, room))
        room -= len(pieces[-1])
        at += len(piece)
    return BytesSource(b"".join(pieces))


def _may_hold_pickle(source: Source, name: str) -> bool:
    if name.endswith((".pkl", ".pickle", ".p", ".joblib")):
        return True
    head = source.read(0, min(6, source.size))
    return has_protocol(source, 0) or head.startswith((zipped.MAGIC, npy.MAGIC))
