"""The members of a zip archive, where their bytes lie, and where their CRC-32 is written.

Nothing is decompressed.  An archive is refused whose parts do not agree: readers differ in which
of two contradicting headers they believe, and theta must not be one more opinion.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from theta.errors import FormatError
from theta.formats.fields import Derived
from theta.formats.layout import Source, clip

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
    """One member: ``size`` bytes from ``payload``, as they are if ``stored``, else compressed.

    ``crc_fields`` are the offsets of the 4-byte fields that hold its CRC-32: the data descriptor or
    the local header first, the central directory last.
    """

    name: str
    stored: bool
    payload: int
    size: int
    crc_fields: tuple[int, ...]
    described: bool

    def derived(self) -> Iterator[Derived]:
        """The CRC fields as derived: computed once, then copied."""
        first, *others = self.crc_fields
        yield Derived("crc32", first, 4, ((self.payload, self.size),))
        for other in others:
            yield Derived("copy", other, 4, ((first, 4),))


def first_name(source: Source) -> str:
    """The name in the local header at the beginning of ``source``; '' where there is none."""
    if source.size < _LOCAL.size:
        return ""
    head = source.read(0, _LOCAL.size)
    length = int.from_bytes(head[26:28], "little")
    if not head.startswith(MAGIC) or source.size < _LOCAL.size + length:
        return ""
    return source.read(_LOCAL.size, length).decode("cp437")


def read_members(source: Source) -> tuple[ZipMember, ...]:
    """All members in the order of the central directory, which is the order of writing.

    Raises ``FormatError`` for a malformed, encrypted or multi-part archive, for bytes before the first
    member's offset base, for duplicate names and for members that overlap.
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
    """Where the archive begins that ends with ``source``: not 0 when archives lie one behind the other."""
    end, start, length, _ = _end_record(source)
    return end - length - start


def _directory(source: Source) -> tuple[int, int, int]:
    """Offset, length and number of entries of the central directory."""
    end, start, length, count = _end_record(source)
    if start + length != end or length < count * _CENTRAL.size:
        raise FormatError("zip: the central directory is not where it says")
    return start, length, count


def _end_record(source: Source) -> tuple[int, int, int, int]:
    """Where the central directory ends; its offset, length and number of entries as they are written."""
    end, fields = _find_end(source)
    _, disk, first_disk, here, count, length, start, _ = fields
    if end >= _LOCATOR.size and source.read(end - _LOCATOR.size, 4) == b"PK\x06\x07":
        end, disk, first_disk, here, count, length, start = _end64(source, end - _LOCATOR.size)
    if disk or first_disk or here != count or count > MAX_MEMBERS:
        raise FormatError("zip: several parts, or too many members")
    return end, start, length, count


def _find_end(source: Source) -> tuple[int, tuple[Any, ...]]:
    """Offset and fields of the end record: at the very end, or before the archive's comment."""
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
    # All offsets count from the beginning of the archive, wherever in the file that is.
    if start + size != said:
        raise FormatError("zip: the zip64 end is not where it says")
    return end, disk, first_disk, here, count, size, start


def _member(source: Source, directory: bytes, at: int, start: int) -> tuple[ZipMember, int, int]:
    """The entry at ``at``, the offset of its local header, and the position of the next entry."""
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
    """``values`` with the 64-bit ones of the zip64 extra field in place of 0xffffffff."""
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
    """The offset of the payload, which only the local header knows, and the CRC written there."""
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
    """The offset of the CRC in the data descriptor at ``at``, if one is there that agrees."""
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
