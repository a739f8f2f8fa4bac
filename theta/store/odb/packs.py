"""Writing and reading Git packs.

libgit2 deflates every blob (37 MB/s) and reads at 100-200 MB/s; the payload of a checkpoint is
compressed already.  So theta writes its own packs, payload in *stored* deflate blocks, and
reads them by memory map.  Format: git's Documentation/gitformat-pack.txt (pack 2, index 2).
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from theta import _fs
from theta import _kernels as kernels
from theta._numpy import np
from theta.errors import CorruptError
from theta.git.backends.pack_index import PackIndex, mapped
from theta.git.object_format import BLOB, COMMIT, SHA1, TREE, ObjectFormat
from theta.git.object_values import tree_bytes
from theta.store.odb.pack_file import PackFile
from theta.store.odb.pack_keeps import Keeps

_NUMBERS: Final = {COMMIT: 1, TREE: 2, BLOB: 3}
_BLOCK: Final = 65535
_STORED_HEAD: Final = b"\x78\x01"
_BLOCK_HEAD: Final = 5
_LITTLE: Final = 2000
_LITTLE_MEMORY: Final = 5
"""Bytes that fit in one block of zlib's memory level 5: they are deflated as with more memory."""
_RANDOM: Final = 100
"""Bytes up to which the ids of a tree, which cannot be compressed, are most of it."""
_BRIEF: Final = 5000
_SOON_SUMMED: Final = 1 << 18
"""Bytes that zlib-ng sums without letting other threads run, and up to which that is worth it.

A sum of 64 kB takes 2 us, and to get the interpreter's lock back from a busy thread takes 50.
"""
_WORTH_READING: Final = 1 << 16
"""Bytes of a stream from which on it is read, not mapped."""
_WORTH_FORGETTING: Final = 256
"""Small streams after which what the system has mapped around them is let go of."""
_WORTH_NO_CLEARING: Final = 1 << 20
"""Bytes from which on memory is had from numpy, which readers of chunks have imported."""
_MOST_PLACES: Final = 1000
"""Places in memory that one call of the system reads to (IOV_MAX is 1024)."""


@dataclass(frozen=True)
class PackEntry:
    """An object as it stands in a pack; making one takes most of the work of adding it.

    Attributes:
        raw_id: its id.
        crc: the CRC-32 of its bytes in the pack.
        pieces: these bytes.
    """

    raw_id: bytes
    crc: int
    pieces: tuple[bytes | memoryview, ...]

    @property
    def oid(self) -> str:
        """The hex id."""
        return self.raw_id.hex()

    @property
    def size(self) -> int:
        """The bytes in the pack."""
        return sum(map(len, self.pieces))


def _entry(kind: str, data: bytes | memoryview, raw_id: bytes, *, deflate: bool) -> PackEntry:
    deflate = deflate and (kind != TREE or len(data) > _RANDOM)
    body: list[bytes | memoryview] = [_deflated(data)] if deflate else _stored(data)
    pieces: tuple[bytes | memoryview, ...] = (_entry_header(_NUMBERS[kind], len(data)), *body)
    if len(data) <= _LITTLE:
        pieces = (b"".join(pieces),)
    crc = 0
    for piece in pieces:
        crc = _sum(kernels.zlib_ng.crc32, piece, crc)
    return PackEntry(raw_id, crc, pieces)


def _sum(check: Callable[[memoryview, int], int], data: bytes | memoryview, value: int) -> int:
    """Return the checksum of ``data`` behind what ``value`` is of."""
    view = memoryview(data)
    if len(view) > _SOON_SUMMED:
        return check(view, value)
    for start in range(0, len(view), _BRIEF):
        value = check(view[start : start + _BRIEF], value)
    return value


def _deflated(data: bytes | memoryview) -> bytes:
    if len(data) > _LITTLE:
        return zlib.compress(data, 6)
    # The state of the usual size is so large that the system maps and clears its pages each time.
    engine = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, _LITTLE_MEMORY)
    return engine.compress(data) + engine.flush()


class PackWriter:
    """Collects objects into one new pack, or several; nothing is visible before :meth:`finish`.

    As a context manager it finishes the packs at the end of the block, and aborts them when the block raises.

    Args:
        directory: ``objects/pack`` of the repository.
        known: says whether an object (hex id) need not be written again.
        form: the hash of the repository, which names objects and ends pack and index.
        keeps: gets the packs before git can see them, and is released when the objects are named.
        in_parts: whether :meth:`expect` may end a pack, and what follows be in another.

    The temporary is called ``tmp_*``, which ``git prune`` removes if theta is killed.
    """

    def __init__(
        self,
        directory: Path,
        known: Callable[[str], bool],
        form: ObjectFormat,
        keeps: Keeps | None = None,
        *,
        in_parts: bool = False,
    ) -> None:
        self._directory, self._keeps = directory, keeps
        self.format = form
        self._known = known
        self._in_parts = in_parts
        self._expected = 0
        self._files: list[PackFile] = []
        self._mine: set[str] = set()
        self.path: Path | None = None
        """The first pack, once all are finished and hold anything."""

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return sum(file.size for file in self._files)

    def expect(self, count: int) -> None:
        """Expect ``count`` new objects now, or an unknown number (0).

        The number of its objects is in the first bytes of a pack, and its end is the hash of all of them.
        So a pack of a known number is hashed while it is written, and one of an unknown number afterwards.
        """
        self._expected = count if self._in_parts else 0
        if not count and self._files:
            self._files[-1].expect_any()

    def blob(self, data: bytes | memoryview, *, text: bool = False) -> str:
        """Add a blob; ``text`` is worth deflating. Return its hex id."""
        return self._add(BLOB, data, deflate=text)

    def tree(self, entries: Iterable[tuple[str, int, str]]) -> str:
        """Add a tree of (name, mode, hex id); one that names a new object is not looked for elsewhere."""
        rows = [*entries]
        is_new = any(oid in self._mine for _, _, oid in rows)
        return self._add(TREE, tree_bytes(rows), deflate=True, is_new=is_new)

    def commit(self, data: bytes) -> str:
        """Add a commit; return its hex id."""
        return self._add(COMMIT, data, deflate=True)

    def blob_entry(self, data: bytes | memoryview, *, text: bool = False) -> PackEntry:
        """Return the entry of a blob, on any thread; ``text`` is worth deflating."""
        return _entry(BLOB, data, self.format.object_id(BLOB, (data,), len(data)), deflate=text)

    def blob_entries(self, datas: Sequence[bytes | memoryview]) -> list[PackEntry]:
        """Return the entries of blobs, on any thread: ids of two large ones take the time of one."""
        if self.format != SHA1:
            return [self.blob_entry(data) for data in datas]
        ids = kernels.sha1.blob_ids(datas)
        return [_entry(BLOB, data, raw_id, deflate=False) for data, raw_id in zip(datas, ids, strict=True)]

    def tree_entry(self, entries: Iterable[tuple[str, int, str]]) -> PackEntry:
        """Return the entry of a tree of (name, mode, hex id), on any thread."""
        data = tree_bytes(entries)
        return _entry(TREE, data, self.format.object_id(TREE, (data,), len(data)), deflate=True)

    def add(self, entry: PackEntry, *, is_new: bool = False) -> bool:
        """Add an object, unless it is known; return whether it was added.

        ``is_new``: it names an object that was added, so it need not be looked for elsewhere.
        """
        if self._has(entry.oid, is_new):
            self.expect(0)
            return False
        self._append(entry)
        return True

    def _add(self, kind: str, data: bytes | memoryview, *, deflate: bool, is_new: bool = False) -> str:
        raw_id = self.format.object_id(kind, (data,), len(data))
        oid = raw_id.hex()
        if not self._has(oid, is_new):
            self._append(_entry(kind, data, raw_id, deflate=deflate))
        return oid

    def _has(self, oid: str, is_new: bool) -> bool:
        return oid in self._mine or (not is_new and self._known(oid))

    def _append(self, entry: PackEntry) -> None:
        self._write(entry)
        self._mine.add(entry.oid)

    def _write(self, entry: PackEntry) -> None:
        """Write an entry, soon, into the last pack or a new one."""
        if not self._files or self._files[-1].is_sealed:
            self._files.append(PackFile(self._directory, self.format, self._expected))
            self._expected = 0
        self._files[-1].append(entry.raw_id, entry.crc, entry.pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.abort()

    def finish(self) -> Path | None:
        """Make the packs durable and visible; return the path of the first, or None without objects."""
        if self._files and self.path is None:
            paths = [file.publish(self._keeps) for file in self._files]
            _fs.fsync_dir(self._directory)
            self.path = paths[0]
        return self.path

    def abort(self) -> None:
        """Remove the temporaries; harmless after :meth:`finish`."""
        for file in self._files:
            file.discard()


class UnwrittenPack(PackWriter):
    """Computes the ids of objects and writes nothing, for a repository that cannot be written to."""

    def __init__(self, form: ObjectFormat) -> None:
        super().__init__(Path(os.devnull), lambda _: False, form)
        self._total = 0

    @property
    def size(self) -> int:
        """Bytes that would have been written so far."""
        return self._total

    def _write(self, entry: PackEntry) -> None:
        self._total += entry.size


def _entry_header(kind: int, size: int) -> bytes:
    byte, size = kind << 4 | size & 15, size >> 4
    out = bytearray()
    while size:
        out.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    out.append(byte)
    return bytes(out)


def _stored(data: bytes | memoryview) -> list[bytes | memoryview]:
    """Return ``data`` as a zlib stream of stored blocks (RFC 1950, 1951)."""
    view = memoryview(data)
    heads, end = _heads(len(view)), struct.pack(">I", _sum(kernels.zlib_ng.adler32, view, 1))
    return [heads, view, end] if len(view) <= _BLOCK else [*_places(memoryview(heads), view), end]


def _heads(size: int) -> bytes:
    """Return the head of a stream of ``size`` bytes, and those of its blocks, one behind the other."""
    full = max(0, (size - 1) // _BLOCK)
    last = _block_head(size - full * _BLOCK, last=True)
    return _STORED_HEAD + full * _block_head(_BLOCK, last=False) + last


def _block_head(length: int, *, last: bool) -> bytes:
    return struct.pack("<BHH", last, length, length ^ 0xFFFF)


def _places(heads: memoryview, data: memoryview) -> list[bytes | memoryview]:
    """Return the parts of a stream of stored blocks in order: each head, and the data of its block."""
    found: list[bytes | memoryview] = [heads[: len(_STORED_HEAD)]]
    for number, at in enumerate(range(len(_STORED_HEAD), len(heads), _BLOCK_HEAD)):
        found += [heads[at : at + _BLOCK_HEAD], data[number * _BLOCK : (number + 1) * _BLOCK]]
    return found


class Pack:
    """A pack on disk, memory-mapped; reads whole, undeltified objects only."""

    def __init__(self, index_path: Path, form: ObjectFormat) -> None:
        self.path = index_path.with_suffix(".pack")
        self._index = PackIndex(index_path, form.size)
        self._map: mmap.mmap | None = None
        self._read = 0

    def __contains__(self, oid: str) -> bool:
        return self._index.find(bytes.fromhex(oid)) is not None

    def ids(self) -> list[str]:
        """Return the hex ids of all objects."""
        return [self._index.id(n).hex() for n in range(self._index.count)]

    def _find(self, raw_id: bytes) -> int | None:
        """Return the offset of an object; None if it is not there."""
        position = self._index.find(raw_id)
        return None if position is None else self._index.offset(position)

    def read(self, oid: str, limit: int) -> bytes | memoryview | None:
        """Return blob or tree ``oid``; None when it is absent or stored as a delta.

        Raises :class:`CorruptError` if it is damaged or larger than ``limit`` bytes.  From 64 KiB on the
        checksum, which takes longer than all else, is not compared: the caller checks a digest.
        """
        offset = self._find(bytes.fromhex(oid))
        if offset is None:
            return None
        if self._map is None:
            try:
                self._map = mapped(self.path)
            except FileNotFoundError:  # git gc put its objects elsewhere
                return None
        kind, size, start = self._entry(offset)
        if kind not in _NUMBERS.values():
            return None
        if size > limit:
            raise CorruptError(f"object {oid} has {size} bytes, over the limit of {limit}")
        if size >= _WORTH_READING and (found := self._blocks(start, size)) is not None:
            return found
        # A stream of ``size`` bytes needs little more than that; the rest of the pack is not its.
        data = self._span(start, size + (size >> 9) + 1024)
        whole = _unstored(data, size) if len(data) >= _WORTH_READING else None
        return _inflate(data, size, oid) if whole is None else whole

    def _blocks(self, start: int, size: int) -> memoryview | None:
        """Return the ``size`` bytes of stored blocks as theta cuts them; None for any other stream.

        The system puts the bytes of each block where they belong, so none of them is copied again.
        """
        heads = _heads(size)
        room, out = bytearray(len(heads)), _room(size)
        places = _places(memoryview(room), memoryview(out))
        if len(places) > _MOST_PLACES:
            return None
        try:
            with open(self.path, "rb", buffering=0) as file:
                read = os.preadv(file.fileno(), places, start)
        except FileNotFoundError:  # it went since it was mapped
            return None
        return memoryview(out).toreadonly() if read == len(heads) + size and room == heads else None

    def _span(self, start: int, length: int) -> memoryview:
        """Return up to ``length`` bytes from ``start`` of the pack."""
        assert self._map is not None
        if length < _WORTH_READING:
            self._read += 1
            if self._read % _WORTH_FORGETTING == 0:
                _forget(self._map)
            return memoryview(self._map)[start : start + length]
        try:
            with open(self.path, "rb", buffering=0) as file:
                return memoryview(_fs.read_at(file.fileno(), length, start))
        except FileNotFoundError:  # it went since it was mapped
            return memoryview(self._map)[start : start + length]
        finally:
            _forget(self._map)

    def _entry(self, offset: int) -> tuple[int, int, int]:
        assert self._map is not None
        head = self._map[offset : offset + 10]
        if not head:
            raise CorruptError(f"{self.path.name} is cut short")
        kind, size, shift = head[0] >> 4 & 7, head[0] & 15, 4
        used = 1
        while head[used - 1] & 0x80:
            if used >= len(head):
                raise CorruptError(f"{self.path.name}: bad entry header")
            size |= (head[used] & 0x7F) << shift
            shift += 7
            used += 1
        return kind, size, offset + used


def _room(size: int) -> bytearray | memoryview:
    """Return writable memory; that for a chunk is not cleared first, as Python's own objects are."""
    return bytearray(size) if size < _WORTH_NO_CLEARING else np.empty(size, np.uint8).data


def _forget(data: mmap.mmap) -> None:
    """Let go of all pages: Linux maps up to 2 MiB around each byte, and counts it as our memory."""
    if hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)


def _unstored(data: memoryview, size: int) -> bytes | None:
    """Return the ``size`` bytes of a zlib stream of stored blocks as theta writes it; None for any other."""
    if bytes(data[:2]) != _STORED_HEAD:
        return None
    parts, at, left = [], 2, size
    while True:
        head = bytes(data[at : at + 5])
        if len(head) < 5 or head[0] > 1:
            return None
        length, inverse = struct.unpack_from("<HH", head, 1)
        if length ^ inverse != 0xFFFF or length > left:
            return None
        parts.append(data[at + 5 : at + 5 + length])
        at, left = at + 5 + length, left - length
        if head[0]:
            found = b"".join(parts)
            return found if len(found) == size else None


def _inflate(data: memoryview, size: int, oid: str) -> bytes:
    engine = zlib.decompressobj()
    try:
        out = engine.decompress(data, size + 1)
    except zlib.error as error:
        raise CorruptError(f"object {oid} is damaged: {error}") from error
    if len(out) != size or not engine.eof:
        raise CorruptError(f"object {oid} is damaged: wrong length")
    return out
