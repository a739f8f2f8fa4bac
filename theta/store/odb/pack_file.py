"""One pack while it is written, and its index (git's Documentation/gitformat-pack.txt, both of version 2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _fs
from theta.git.object_format import ObjectFormat
from theta.store.odb.pack_keeps import Keeps

if TYPE_CHECKING:
    from hashlib import _Hash

_COUNT_AT: Final = 8
_WORTH_WRITING: Final = 1 << 18
"""Bytes of entries that are written at once."""
_WORTH_SENDING: Final = 1 << 25
"""Bytes that were written from which on the system is to begin with putting them on disk."""


class PackFile:
    """The temporary file of a pack, to which objects are appended.

    Args:
        directory: ``objects/pack`` of the repository.
        form: the hash of the repository.
        expected: the number of its objects if it is known; the pack is sealed when it has them all.
    """

    def __init__(self, directory: Path, form: ObjectFormat, expected: int = 0) -> None:
        self._directory, self._form, self._expected = directory, form, expected
        self._file = _fs.AppendFile(directory)
        self._rows: list[tuple[bytes, int, int]] = []  # id, crc32, offset
        self._waiting: list[bytes | memoryview] = []
        self._waiting_size = self._sent = 0
        self._hash: _Hash | None = form.hash() if expected else None
        self._trailer = b""
        self._put([b"PACK" + struct.pack(">II", 2, expected)])

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.size + self._waiting_size

    @property
    def is_sealed(self) -> bool:
        """Whether it has its last object."""
        return bool(self._trailer)

    def expect_any(self) -> None:
        """Take any number of objects from now on: the pack is hashed when it is published."""
        if not self.is_sealed:
            self._hash = None

    def append(self, raw_id: bytes, crc: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Write an object whose bytes in the pack, with this CRC-32, are ``pieces``."""
        self._rows.append((raw_id, crc, self.size))
        self._put(pieces)
        if self._hash is not None and len(self._rows) == self._expected:
            self._seal()

    def _put(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._waiting += pieces
        self._waiting_size += sum(map(len, pieces))
        if self._waiting_size >= _WORTH_WRITING:
            self._flush()

    def _flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._file.write(*self._waiting)
        if self._hash is not None:
            for piece in self._waiting:
                self._hash.update(piece)
        self._waiting, self._waiting_size = [], 0
        if self._file.size - self._sent >= _WORTH_SENDING:
            self._file.begin_writing_back()
            self._sent = self._file.size

    def _seal(self) -> None:
        """Write the end."""
        self._flush()
        if self._hash is None or len(self._rows) != self._expected:
            self._file.patch(_COUNT_AT, struct.pack(">I", len(self._rows)))
            self._hash = self._hashed()
        self._trailer = self._hash.digest()
        self._file.write(self._trailer)

    def _hashed(self) -> _Hash:
        """Read back and hash what was written."""
        found, offset, room = self._form.hash(), 0, bytearray(1 << 20)
        while length := self._file.read_into(offset, room):
            found.update(memoryview(room)[:length])
            offset += length
        return found

    def publish(self, keeps: Keeps | None) -> Path:
        """Make the pack and its index durable, give them their names, and return that of the pack.

        ``keeps`` gets the pack before git can see it.
        """
        if not self.is_sealed:
            self._seal()
        name = self._directory / f"pack-{self._trailer.hex()}"
        index = _fs.AppendFile(self._directory)
        try:
            index.write(_index_bytes(sorted(self._rows), self._trailer, self._form))
            if keeps is not None:
                keeps.add(name)
            self._file.publish(f"{name}.pack")
            index.publish(f"{name}.idx")
        finally:
            index.discard()
        return Path(f"{name}.pack")

    def discard(self) -> None:
        """Remove the temporary; harmless after :meth:`publish`."""
        self._file.discard()


def _index_bytes(rows: list[tuple[bytes, int, int]], trailer: bytes, form: ObjectFormat) -> bytes:
    counts = [0] * 256
    for raw_id, _, _ in rows:
        counts[raw_id[0]] += 1
    total, fan_out = 0, []
    for count in counts:
        total += count
        fan_out.append(total)
    far = [offset for _, _, offset in rows if offset >= 1 << 31]
    place = {offset: number | 1 << 31 for number, offset in enumerate(far)}
    body = b"".join(
        [
            b"\xfftOc" + struct.pack(">I", 2),
            struct.pack(">256I", *fan_out),
            b"".join(raw_id for raw_id, _, _ in rows),
            struct.pack(f">{total}I", *(crc for _, crc, _ in rows)),
            struct.pack(f">{total}I", *(place.get(offset, offset) for _, _, offset in rows)),
            struct.pack(f">{len(far)}Q", *far),
            trailer,
        ]
    )
    return body + form.hash(body).digest()
