"""Locating the members of an uncompressed tar archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from theta.errors import FormatError
from theta.formats.layout import Source, clip

MAX_MEMBERS: Final = 10_000
_BLOCK: Final = 512
_FILES: Final = (b"0", b"\0")


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file of the archive: ``size`` bytes from ``payload``."""

    name: str
    payload: int
    size: int


def detect(source: Source) -> bool:
    """Return whether the file starts with a tar header whose checksum is correct."""
    return source.size >= 2 * _BLOCK and _is_header(source.read(0, _BLOCK))


def read_members(source: Source) -> Iterator[TarMember]:
    """Yield the regular files in order; raises ``FormatError`` for broken headers and truncated archives.

    Extended headers are ignored, because torch's names are short.
    """
    position = 0
    for _ in range(MAX_MEMBERS):
        if position + _BLOCK > source.size:
            raise FormatError("tar: no end")
        header = source.read(position, _BLOCK)
        if not any(header):
            return
        if not _is_header(header):
            raise FormatError(f"tar: no header at byte {position}")
        size = _octal(header[124:136])
        position += _BLOCK
        if size > source.size - position:
            raise FormatError("tar: a member goes beyond the archive")
        if header[156:157] in _FILES:
            yield TarMember(_name(header), position, size)
        position += size + -size % _BLOCK
    raise FormatError(f"tar: more than {MAX_MEMBERS} members")


def _is_header(header: bytes) -> bool:
    try:
        said = _octal(header[148:156])
    except FormatError:
        return False
    return sum(header[:148]) + sum(header[156:]) + 8 * 0x20 == said and any(header[:100])


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not digits or any(digit not in b"01234567" for digit in digits):
        raise FormatError("tar: a number that is not octal")
    return int(digits, 8)


def _name(header: bytes) -> str:
    raw = header[:100].partition(b"\0")[0]
    try:
        return raw.decode().removeprefix("./")
    except UnicodeDecodeError as error:
        raise FormatError(f"tar: not a name: {clip(repr(raw))}") from error
