"""Locating the members of a zip archive and their CRC-32 fields.

Nothing is decompressed.  An archive with contradicting headers is malformed: other readers differ in which
header they use.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from theta.errors import FormatError
from theta.formats.fields import Derived
from theta.formats.layout import Source, Window, clip

MAGIC: Final = b"PK\x03\x04"
MAX_MEMBERS: Final = 1_000_000
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_LOCATOR: Final = struct.Struct("<4sIQI")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_U32: Final = 0xFFFF_FFFF
_HAS_DESCRIPTOR: Final = 8
_ENCRYPTED: Final = 0x2041
_UTF8: Final = 0x800


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member of the archive.

    Attributes:
        name: name of the member.
        stored: the content is not compressed.
        payload: offset of the content in the file.
        size: length of the content in the file, in bytes.
        crc_fields: offsets of the 4-byte fields with the CRC-32: the data descriptor or the local
            header first, the central directory last.
        described: the member has a data descriptor.
    """

    name: str
    stored: bool
    payload: int
    size: int
    crc_fields: tuple[int, ...]
    described: bool

    def derived(self) -> Iterator[Derived]:
        """Yield the CRC fields as derived fields: the first is computed, the others are copies."""
        first, *others = self.crc_fields
        yield Derived("crc32", first, 4, ((self.payload, self.size),))
        for other in others:
            yield Derived("copy", other, 4, ((first, 4),))


def first_name(source: Source) -> str:
    """Return the name in the local header at the start of ``source``; '' without one."""
    if source.size < _LOCAL.size:
        return ""
    head = source.read(0, _LOCAL.size)
    length = int.from_bytes(head[26:28], "little")
    if not head.startswith(MAGIC) or source.size < _LOCAL.size + length:
        return ""
    return source.read(_LOCAL.size, length).decode("cp437")


def read_members(source: Source) -> tuple[ZipMember, ...]:
    """Return all members in the order of the central directory, in which they were written.

    Raises ``FormatError`` for a malformed, encrypted or multi-part archive, for bytes before the archive,
    for duplicate names and for overlapping members.
    """
    start, length, count = _directory(source)
    directory = source.read(start, length)
    members: list[ZipMember] = []
    spans: list[tuple[int, int]] = []
    names: set[str] = set()
    position = 0
    for _ in range(count):
        member, header, position = _member(source, directory, position, start)
        if member.name in names:
            raise FormatError(f"zip: two members are named {clip(member.name)}")
        names.add(member.name)
        members.append(member)
        spans.append((header, member.payload + member.size))
    if position != length:
        raise FormatError("zip: the central directory is not as long as it says")
    _check_disjoint(spans, start)
    return tuple(members)


def _check_disjoint(spans: list[tuple[int, int]], limit: int) -> None:
    position = 0
    for start, end in sorted(spans):
        if start < position or end > limit:
            raise FormatError(f"zip: the member at byte {start} overlaps another part")
        position = end


def archive_start(source: Source) -> int:
    """Return the offset of the last archive in ``source``, not 0 if other bytes precede it."""
    end, start, length, _ = _end_record(source)
    return end - length - start


def archives(source: Source, limit: int) -> list[Window]:
    """Split ``source`` into concatenated archives; empty if they are not contiguous or more than ``limit``.

    Raises ``FormatError`` if an archive has no end.
    """
    found: list[Window] = []
    end = source.size
    while end:
        start = archive_start(Window(source, 0, end))
        if not 0 <= start < end or len(found) >= limit:
            return []
        found.append(Window(source, start, end - start))
        end = start
    return found[::-1]


def _directory(source: Source) -> tuple[int, int, int]:
    """Return offset, length and number of entries of the central directory."""
    end, start, length, count = _end_record(source)
    if start + length != end or length < count * _CENTRAL.size:
        raise FormatError("zip: the central directory is not where it says")
    return start, length, count


def _end_record(source: Source) -> tuple[int, int, int, int]:
    """Return the end of the central directory, and its offset, length and number of entries as written."""
    end, fields = _find_end(source)
    _, disk, first_disk, here, count, length, start, _ = fields
    if end >= _LOCATOR.size and source.read(end - _LOCATOR.size, 4) == b"PK\x06\x07":
        end, disk, first_disk, here, count, length, start = _end64(source, end - _LOCATOR.size)
    if disk or first_disk or here != count or count > MAX_MEMBERS:
        raise FormatError("zip: several parts, or too many members")
    return end, start, length, count


def _find_end(source: Source) -> tuple[int, tuple[Any, ...]]:
    """Return offset and fields of the end record, which a comment may follow."""
    for room in (_END.size, _END.size + 0xFFFF):
        tail_start = max(0, source.size - room)
        tail = source.read(tail_start, source.size - tail_start)
        at = tail.rfind(b"PK\x05\x06")
        if at >= 0 and at + _END.size <= len(tail):
            fields = _END.unpack_from(tail, at)
            if at + _END.size + fields[-1] != len(tail):
                raise FormatError("zip: bytes behind the end")
            return tail_start + at, fields
    raise FormatError("zip: no end of the central directory")


def _end64(source: Source, locator: int) -> tuple[int, ...]:
    _, disk, said, disks = _LOCATOR.unpack(source.read(locator, _LOCATOR.size))
    end = locator - _END64.size
    if disk or disks > 1 or not 0 <= said <= end:
        raise FormatError("zip: the zip64 end is not where it says")
    magic, length, _, _, disk, first_disk, here, count, size, start = _END64.unpack(
        source.read(end, _END64.size)
    )
    if magic != b"PK\x06\x06" or length != _END64.size - 12:
        raise FormatError("zip: malformed zip64 end")
    # All offsets are relative to the start of the archive, which may not be that of the file.
    if start + size != said:
        raise FormatError("zip: the zip64 end is not where it says")
    return end, disk, first_disk, here, count, size, start


def _member(source: Source, directory: bytes, at: int, start: int) -> tuple[ZipMember, int, int]:
    """Return the entry at ``at``, the offset of its local header, and the position of the next entry."""
    if at + _CENTRAL.size > len(directory):
        raise FormatError("zip: the central directory is truncated")
    fields = _CENTRAL.unpack_from(directory, at)
    magic, _, _, flags, method, _, _, crc, packed, size, name_len, extra_len, comment_len, *_, header = fields
    name_at = at + _CENTRAL.size
    following = name_at + name_len + extra_len + comment_len
    if magic != b"PK\x01\x02" or following > len(directory) or flags & _ENCRYPTED:
        raise FormatError("zip: malformed or encrypted entry in the central directory")
    raw_name = directory[name_at : name_at + name_len]
    extra = directory[name_at + name_len : name_at + name_len + extra_len]
    size, packed, header = _wide(extra, (size, packed, header))
    payload, local_crc = _local(source, header, raw_name, flags, method, start)
    if payload + packed > start or (method == 0 and packed != size):
        raise FormatError("zip: a member goes beyond the archive")
    described = _descriptor(source, payload + packed, crc, start) if flags & _HAS_DESCRIPTOR else None
    crc_fields = [] if described is None else [described]
    if local_crc == crc and not flags & _HAS_DESCRIPTOR:
        crc_fields.append(header + 14)
    crc_fields.append(start + at + 16)
    member = ZipMember(
        _text(raw_name, flags), method == 0, payload, packed, tuple(crc_fields), described is not None
    )
    return member, header, following


def _wide(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return ``values`` with each 0xffffffff replaced by the value in the zip64 extra field."""
    wanted = values.count(_U32)
    if not wanted:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1 and length >= 8 * wanted and at + 4 + length <= len(extra):
            wide = iter(struct.unpack_from(f"<{wanted}Q", extra, at + 4))
            size, packed, header = (next(wide) if value == _U32 else value for value in values)
            return size, packed, header
        at += 4 + length
    raise FormatError("zip: an entry lacks its 64-bit sizes")


def _local(
    source: Source, header: int, raw_name: bytes, flags: int, method: int, limit: int
) -> tuple[int, int]:
    """Return the offset of the payload and the CRC in the local header."""
    if header + _LOCAL.size + len(raw_name) > limit:
        raise FormatError("zip: a local header is outside the archive")
    head = source.read(header, _LOCAL.size + len(raw_name))
    magic, _, local_flags, local_method, _, _, crc, _, _, name_len, extra_len = _LOCAL.unpack_from(head)
    if magic != MAGIC or local_flags != flags or local_method != method:
        raise FormatError(f"zip: the local header at byte {header} contradicts the directory")
    if name_len != len(raw_name) or head[_LOCAL.size :] != raw_name:
        raise FormatError(f"zip: the local header at byte {header} has another name")
    return header + _LOCAL.size + name_len + extra_len, crc


def _descriptor(source: Source, at: int, crc: int, limit: int) -> int | None:
    """Return the offset of the CRC in the data descriptor at ``at``; None without one with this CRC."""
    if at + 16 > limit:
        return None
    magic, found = struct.unpack("<4sI", source.read(at, 8))
    return at + 4 if magic == b"PK\x07\x08" and found == crc else None


def _text(raw: bytes, flags: int) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise FormatError("zip: a name is not valid UTF-8") from error
    if not name or "\0" in name:
        raise FormatError("zip: an empty name, or one with a zero")
    return name
