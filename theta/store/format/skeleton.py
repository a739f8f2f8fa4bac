"""The skeleton of a checkpoint: every byte that is not a tensor, and the table of segments.

Stored as the tree ``@skeleton``: ``table.NNNN`` (the table, text) and ``literal.NNNN`` (the
bytes that stand between the tensors).  Restore runs the table and nothing else, so that old
commits never depend on today's parsers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from typing import Literal as Literal_

from theta.errors import CorruptError, FormatError, NewerFormatError
from theta.formats.derived import arguments, derive, prove
from theta.formats.fields import OPERATIONS, Derived, check_fields
from theta.formats.layout import Layout, Source, Tensor
from theta.lazy import lazy
from theta.store.format.manifest import Line
from theta.store.format.names import escape_line, unescape_line
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

VERSION: Final = 1
NAME: Final = "@skeleton"
_MAGIC: Final = "theta skeleton "
_PIECE: Final = 4 << 20
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,17})"
_RANK: Final = r"(?:0|[1-9][0-9]{0,5})"
_FIELD: Final = re.compile(
    rf"([a-z0-9-]+) (little|big) ({_RANK}) ({_NUMBER}\+{_NUMBER}(?:,{_NUMBER}\+{_NUMBER})*)"
)
_LENGTH: Final = re.compile(_NUMBER)
_MAX_TABLE: Final = 256 << 20
_MAX_LITERAL: Final = 1 << 30
_MAX_SEGMENTS: Final = 4 << 20


@dataclass(frozen=True)
class Literal:
    """``length`` bytes that are stored as they are."""

    length: int


@dataclass(frozen=True)
class Extent:
    """The ``length`` bytes of tensor ``name``."""

    length: int
    name: str


@dataclass(frozen=True)
class Field:
    """``length`` bytes that follow from other bytes of the file, such as a CRC-32.

    Fields are computed in the order of ``rank``; see :mod:`theta.formats.derived`.
    """

    length: int
    op: str
    order: Literal_["little", "big"]
    rank: int
    arguments: tuple[tuple[int, int], ...]


Segment = Literal | Extent | Field


@dataclass(frozen=True)
class Skeleton:
    """The segments of a file in order, and the bytes of its literals, one after another."""

    segments: tuple[Segment, ...]
    literal: bytes

    @lazy
    def size(self) -> int:
        """Bytes of the whole file."""
        return sum(segment.length for segment in self.segments)

    def extents(self) -> Iterator[tuple[str, int, int]]:
        """Return (name, offset in the file, length) of each tensor, in order."""
        return iter(self._extents)

    @lazy
    def _extents(self) -> tuple[tuple[str, int, int], ...]:
        found, offset = [], 0
        for segment in self.segments:
            if isinstance(segment, Extent):
                found.append((segment.name, offset, segment.length))
            offset += segment.length
        return tuple(found)

    def literals(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset in the file, bytes) of each run of literal bytes."""
        offset = used = 0
        for segment in self.segments:
            if isinstance(segment, Literal):
                yield offset, self.literal[used : used + segment.length]
                used += segment.length
            offset += segment.length

    def matches(self, source: Source) -> bool:
        """Return whether ``source`` has these literal bytes at these places and is as long."""
        if source.size != self.size:
            return False
        if any(source.read(offset, len(data)) != data for offset, data in self.literals()):
            return False
        fields = self.fields()
        return all(derive(f, arguments(f, source)) == source.read(f.offset, f.width) for f in fields)

    def fields(self) -> tuple[Derived, ...]:
        """Return the derived fields, in the order in which they are computed."""
        found, offset = [], 0
        for segment in self.segments:
            if isinstance(segment, Field):
                place = Derived(segment.op, offset, segment.length, segment.arguments, segment.order)
                found.append((segment.rank, place))
            offset += segment.length
        return tuple(place for _, place in sorted(found, key=lambda item: item[0]))

    def layout(self, container: str, lines: dict[str, Line]) -> Layout:
        """Return the layout of these segments; tensors take type and shape from ``lines``."""
        tensors = [
            Tensor(name, lines[name].dtype, lines[name].shape, offset, length)
            for name, offset, length in self.extents()
        ]
        return Layout(container, self.size, tuple(tensors), self.fields())

    def write(self, pack: PackWriter) -> str:
        """Add the tree ``@skeleton`` to ``pack``; return its id."""
        entries = []
        for kind, data in (("table", self._table()), ("literal", self.literal)):
            for number, start in enumerate(range(0, len(data), _PIECE)):
                oid = pack.blob(data[start : start + _PIECE], text=True)
                entries.append((_piece_name(kind, number), 0o100644, oid))
        return pack.tree(entries)

    def _table(self) -> bytes:
        rows = (_row(item) + "\n" for item in self.segments)
        return (f"{_MAGIC}{VERSION}\n" + "".join(rows)).encode()


def _row(item: Segment) -> str:
    if isinstance(item, Literal):
        return f"literal {item.length}"
    if isinstance(item, Extent):
        return f"extent {item.length} {escape_line(item.name)}"
    places = ",".join(f"{start}+{length}" for start, length in item.arguments)
    return f"derived {item.length} {item.op} {item.order} {item.rank} {places}"


def from_layout(layout: Layout, source: Source) -> Skeleton:
    """Return the skeleton of ``source``, whose tensors lie as ``layout`` says.

    A derived field that does not hold in ``source`` becomes literal.
    """
    layout = prove(layout, source)
    parts: list[tuple[int, Segment]] = [(t.offset, Extent(t.length, t.name)) for t in layout.tensors]
    parts += [
        (f.offset, Field(f.width, f.op, f.order, rank, f.arguments)) for rank, f in enumerate(layout.derived)
    ]
    segments: list[Segment] = []
    literals: list[bytes] = []
    offset = 0
    for start, part in sorted(parts, key=lambda item: item[0]):
        if part.length and start > offset:
            segments.append(Literal(start - offset))
            literals.append(source.read(offset, start - offset))
        segments.append(part)
        offset = start + part.length if part.length else offset
    if layout.size > offset:
        segments.append(Literal(layout.size - offset))
        literals.append(source.read(offset, layout.size - offset))
    return Skeleton(tuple(segments), b"".join(literals))


def holds(layout: Layout) -> bool:
    """Return whether the skeleton of ``layout`` is one that :func:`read` accepts."""
    literal = layout.size - sum(tensor.length for tensor in layout.tensors)
    segments = 2 * (len(layout.tensors) + len(layout.derived)) + 1
    return literal <= _MAX_LITERAL and segments <= _MAX_SEGMENTS


def read(objects: Objects, oid: str) -> Skeleton:
    """Read the skeleton in tree ``oid``; raises :class:`CorruptError` if it is malformed."""
    files = objects.files(oid)
    pieces, literals = _pieces(files, "table"), _pieces(files, "literal")
    if len(pieces) + len(literals) != len(files):
        raise CorruptError(f"a skeleton has files other than pieces in order: {len(files)} in all")
    table, literal = _joined(objects, pieces, _MAX_TABLE), _joined(objects, literals, _MAX_LITERAL)
    if table.count(b"\n") > _MAX_SEGMENTS + 1:
        raise CorruptError(f"a skeleton has more than {_MAX_SEGMENTS} segments")
    segments = tuple(segments_of(table))
    if sum(item.length for item in segments if isinstance(item, Literal)) != len(literal):
        raise CorruptError("a skeleton's literals do not fill its table")
    found = Skeleton(segments, literal)
    try:
        ranks = sorted(item.rank for item in segments if isinstance(item, Field))
        check_fields(found.size, (), found.fields(), ranks)
    except FormatError as error:
        raise CorruptError(f"a malformed skeleton: {error}") from error
    return found


def _pieces(files: Mapping[str, str], kind: str) -> list[str]:
    """Return the ids of the pieces ``kind``, in order."""
    found: list[str] = []
    while (oid := files.get(_piece_name(kind, len(found)))) is not None:
        found.append(oid)
    return found


def _piece_name(kind: str, number: int) -> str:
    return f"{kind}.{number:04d}"


def _joined(objects: Objects, pieces: list[str], limit: int) -> bytes:
    parts: list[bytes] = []
    for number, oid in enumerate(pieces, 1):
        parts.append(objects.text(oid))
        limit -= len(parts[-1])
        if limit < 0:
            raise CorruptError("a skeleton is over its size limit")
        if not parts[-1] or (number < len(pieces) and len(parts[-1]) != _PIECE) or len(parts[-1]) > _PIECE:
            raise CorruptError(f"a piece of a skeleton has {len(parts[-1])} bytes")
    return b"".join(parts)


def segments_of(table: bytes) -> Iterator[Segment]:
    """Yield the segments that the text of a table names; raises :class:`CorruptError`."""
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
    if _LENGTH.fullmatch(number) is None:
        raise ValueError("a bad length")
    if kind == "literal" and rest == number:
        return Literal(int(number))
    if kind == "extent":
        return Extent(int(number), unescape_line(name))
    if kind == "derived":
        return _field(int(number), name)
    raise ValueError(f"unknown segment {kind[:40]!r}")


def _field(length: int, text: str) -> Field:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise ValueError("a malformed derived field")
    op, order, rank, places = found.groups()
    if op not in OPERATIONS:
        raise NewerFormatError(
            f"a skeleton uses the operation {op[:40]!a}, which is newer than this theta", hint="upgrade theta"
        )
    pairs = (place.split("+") for place in places.split(","))
    ranges = tuple((int(start), int(size)) for start, size in pairs)
    return Field(length, op, "little" if order == "little" else "big", int(rank), ranges)
