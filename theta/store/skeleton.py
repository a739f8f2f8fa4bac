"""The skeleton of a checkpoint: every byte that is not a tensor, and the table of segments.

Stored as the tree ``@skeleton``: ``table.NNNN`` (the table, text) and ``literal.NNNN`` (the
bytes that stand between the tensors).  Restore runs the table and nothing else, so that old
commits never depend on today's parsers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from theta.errors import CorruptError, NewerFormatError
from theta.formats.layout import Layout, Source, Tensor
from theta.store.manifest import Line
from theta.store.names import escape_line, unescape_line
from theta.store.objects import Objects
from theta.store.packs import PackWriter

VERSION: Final = 1
NAME: Final = "@skeleton"
_MAGIC: Final = "theta skeleton "
_PIECE: Final = 4 << 20
_MAX_TABLE: Final = 256 << 20
_MAX_LITERAL: Final = 1 << 30


@dataclass(frozen=True)
class Literal:
    """``length`` bytes that are stored as they are."""

    length: int


@dataclass(frozen=True)
class Extent:
    """The ``length`` bytes of tensor ``name``."""

    length: int
    name: str


Segment = Literal | Extent


@dataclass(frozen=True)
class Skeleton:
    """The segments of a file in order, and the bytes of its literals, one after another."""

    segments: tuple[Segment, ...]
    literal: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return sum(segment.length for segment in self.segments)

    def extents(self) -> Iterator[tuple[str, int, int]]:
        """(name, offset in the file, length) of each tensor."""
        offset = 0
        for segment in self.segments:
            if isinstance(segment, Extent):
                yield segment.name, offset, segment.length
            offset += segment.length

    def matches(self, source: Source) -> bool:
        """Whether ``source`` has these literal bytes at these places and is as long."""
        if source.size != self.size:
            return False
        offset = used = 0
        for segment in self.segments:
            if isinstance(segment, Literal):
                wanted = self.literal[used : used + segment.length]
                if source.read(offset, segment.length) != wanted:
                    return False
                used += segment.length
            offset += segment.length
        return True

    def layout(self, container: str, lines: dict[str, Line]) -> Layout:
        """The layout that these segments describe; tensors take type and shape from ``lines``."""
        tensors = [
            Tensor(name, lines[name].dtype, lines[name].shape, offset, length)
            for name, offset, length in self.extents()
        ]
        return Layout(container, self.size, tuple(tensors))

    def write(self, pack: PackWriter) -> str:
        """Add the tree ``@skeleton`` to ``pack``; the answer is its id."""
        entries = []
        for kind, data in (("table", self._table()), ("literal", self.literal)):
            for number, start in enumerate(range(0, len(data), _PIECE)):
                oid = pack.blob(data[start : start + _PIECE], text=True)
                entries.append((f"{kind}.{number:04d}", 0o100644, oid))
        return pack.tree(entries)

    def _table(self) -> bytes:
        rows = [
            f"literal {item.length}"
            if isinstance(item, Literal)
            else f"extent {item.length} {escape_line(item.name)}"
            for item in self.segments
        ]
        return (f"{_MAGIC}{VERSION}\n" + "".join(row + "\n" for row in rows)).encode()


def from_layout(layout: Layout, source: Source) -> Skeleton:
    """The skeleton of ``source``, whose tensors lie as ``layout`` says."""
    segments: list[Segment] = []
    literals: list[bytes] = []
    offset = 0

    def literal_up_to(end: int) -> None:
        if end > offset:
            segments.append(Literal(end - offset))
            literals.append(source.read(offset, end - offset))

    for tensor in layout.tensors:
        if tensor.length:
            literal_up_to(tensor.offset)
            offset = tensor.offset + tensor.length
        segments.append(Extent(tensor.length, tensor.name))
    literal_up_to(layout.size)
    return Skeleton(tuple(segments), b"".join(literals))


def read(objects: Objects, oid: str) -> Skeleton:
    """The skeleton in tree ``oid``; raises :class:`CorruptError` where it is malformed."""
    files = objects.tree(oid)
    table = _joined(objects, files, "table", _MAX_TABLE)
    literal = _joined(objects, files, "literal", _MAX_LITERAL)
    segments = tuple(segments_of(table))
    if sum(item.length for item in segments if isinstance(item, Literal)) != len(literal):
        raise CorruptError("a skeleton's literals do not fill its table")
    return Skeleton(segments, literal)


def _joined(objects: Objects, files: dict[str, tuple[int, str]], kind: str, limit: int) -> bytes:
    parts: list[bytes] = []
    for name in sorted(name for name in files if name.startswith(kind + ".")):
        parts.append(objects.text(files[name][1]))
        limit -= len(parts[-1])
        if limit < 0:
            raise CorruptError("a skeleton is over its size limit")
    return b"".join(parts)


def segments_of(table: bytes) -> Iterator[Segment]:
    """The segments that the text of a table names; raises :class:`CorruptError`."""
    try:
        lines = table.decode().split("\n")
        version = int(lines[0].removeprefix(_MAGIC))
        if version > VERSION:
            raise NewerFormatError(f"a skeleton is in format {version}", hint="upgrade theta")
        if lines[0] != f"{_MAGIC}{VERSION}" or lines[-1]:
            raise ValueError("bad first or last line")
        for line in lines[1:-1]:
            yield _segment(line)
    except ValueError as error:
        raise CorruptError(f"a malformed skeleton: {error}") from error


def _segment(line: str) -> Segment:
    kind, _, rest = line.partition(" ")
    number, _, name = rest.partition(" ")
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        raise ValueError("a bad length")
    if kind == "literal" and not name:
        return Literal(int(number))
    if kind == "extent":
        return Extent(int(number), unescape_line(name))
    raise ValueError(f"unknown segment {kind[:40]!r}")
