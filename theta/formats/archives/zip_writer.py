"""Planning zip archives of stored members before their values are known: the CRC-32s are derived.

Sizes and offsets always have 64 bits, so that headers do not depend on the size.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

from theta.errors import FormatError
from theta.formats.fields import Derived
from theta.formats.layout import TensorSpec, clip, nbytes
from theta.formats.plan import Builder

_VERSION: Final = 45
_UTF8: Final = 0x800
_DATE: Final = 0x21  # 1980-01-01: a plan has no clock
_U32: Final = 0xFFFF_FFFF
_LOCAL_SIZE: Final = 30


class ZipBuilder:
    """Adds members to a ``Builder``; ``finish`` adds the central directory."""

    def __init__(self) -> None:
        self.builder = Builder()
        self._names: set[bytes] = set()
        # Name, offset of the local header, size, and the CRC-32 or the offset of its field.
        self._entries: list[tuple[bytes, int, int, int | bytes]] = []

    def member(self, name: str, head: bytes, spec: TensorSpec | None, alignment: int = 1) -> None:
        """Add a member with ``head`` followed by the values of ``spec``, aligned to ``alignment`` bytes."""
        raw = name.encode("utf-8", "replace")
        if not 0 < len(raw) <= 0xFFFF or raw in self._names or _leads_out(name):
            raise FormatError(f"zip: no member can be named {clip(name)}, or a second one")
        self._names.add(raw)
        size = len(head) + (nbytes(spec.name, spec.dtype, spec.shape) if spec else 0)
        start = self.builder.size
        extra = struct.pack("<2H2Q", 1, 16, size, size)
        extra += _padding(start + _LOCAL_SIZE + len(raw) + len(extra), alignment)
        self.builder.literal(struct.pack("<4s5H", b"PK\x03\x04", _VERSION, _UTF8, 0, 0, _DATE))
        crc = zlib.crc32(head).to_bytes(4, "little")
        field = self.builder.size
        if spec is None:
            self.builder.literal(crc)
        else:
            self.builder.hole(4)
        self.builder.literal(struct.pack("<2I2H", _U32, _U32, len(raw), len(extra)) + raw + extra)
        payload = self.builder.size
        self.builder.literal(head)
        if spec is not None:
            self.builder.tensor(spec)
            self.builder.derive(Derived("crc32", field, 4, ((payload, size),)))
        self._entries.append((raw, start, size, crc if spec is None else field))

    def finish(self) -> Builder:
        """Add the central directory and its end; return the builder of the whole file."""
        directory = self.builder.size
        for raw, start, size, crc in self._entries:
            head = struct.pack("<4s6H", b"PK\x01\x02", _VERSION, _VERSION, _UTF8, 0, 0, _DATE)
            self.builder.literal(head)
            if isinstance(crc, bytes):
                self.builder.literal(crc)
            else:
                self.builder.derive(Derived("copy", self.builder.hole(4), 4, ((crc, 4),)))
            extra = struct.pack("<2H3Q", 1, 24, size, size, start)
            fields = struct.pack("<2I5H2I", _U32, _U32, len(raw), len(extra), 0, 0, 0, 0, _U32)
            self.builder.literal(fields + raw + extra)
        self._end(directory)
        return self.builder

    def _end(self, directory: int) -> None:
        end, count = self.builder.size, len(self._entries)
        length = end - directory
        record = struct.pack("<4sQ2H2I", b"PK\x06\x06", 44, _VERSION, _VERSION, 0, 0)
        record += struct.pack("<4Q", count, count, length, directory)
        record += struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        short = min(count, 0xFFFF)
        record += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, short, short, _U32, _U32, 0)
        self.builder.literal(record)


def _leads_out(name: str) -> bool:
    """Return whether a member of this name may be unpacked outside of the directory (as in CVE-2007-4559)."""
    parts = re.split(r"[/\\]", name)
    return "\0" in name or not parts[0] or ".." in parts or re.match("[A-Za-z]:", name) is not None


def _padding(position: int, alignment: int) -> bytes:
    """Return an extra field that aligns the content to a multiple of ``alignment``, as torch writes it."""
    if position % alignment == 0:
        return b""
    length = -(position + 4) % alignment
    return b"FB" + struct.pack("<H", length) + b"Z" * length
