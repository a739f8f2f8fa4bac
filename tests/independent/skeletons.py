"""The bytes of a file around its tensors, and the table of segments (format.md, section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.independent import derived
from tests.independent.derived import MOST, Field
from tests.independent.manifest_text import unescape
from tests.independent.numbers import MAX_FILE
from tests.independent.odb import Objects
from tests.independent.primitives import refuse, require

PIECE: Final = 4 * 2**20
MAX_TABLE: Final = 512 * 2**20
"""The limit of a table: this reader's own."""
_LINE: Final = re.compile(
    r"literal (?P<literal>[0-9]+)|extent (?P<extent>[0-9]+) (?P<name>.*)"
    r"|derived (?P<width>[0-9]+) (?P<operation>[a-z0-9-]+) (?P<order>little|big) (?P<rank>[0-9]+)"
    r" (?P<places>[0-9+,]+)"
)


@dataclass
class Skeleton:
    """The places of literals, tensors and derived fields in the file."""

    size: int = 0
    literals: list[tuple[int, int]] = field(default_factory=list)
    extents: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Name -> (offset, length) of each place of the tensor."""
    fields: list[Field] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Add the segment that a line of the table names."""
        match = _LINE.fullmatch(line)
        if not match:
            refuse(f"a segment has a bad line: {line[:80]!r}")
        length = _number(match["literal"] or match["extent"] or match["width"])
        if match["literal"]:
            self.literals.append((self.size, length))
        elif match["extent"]:
            self.extents.setdefault(unescape(match["name"]), []).append((self.size, length))
        else:
            places = [_place(one) for one in match["places"].split(",")]
            rank = _number(match["rank"])
            require(rank < 10**6, "a field has too high a rank")
            self.fields.append(Field(self.size, length, match["operation"], match["order"], rank, places))
        self.size += length
        require(self.size <= MAX_FILE, "a file is too large")


def _number(text: str) -> int:
    require(len(text) <= 15 and str(int(text)) == text, f"the number {text[:20]} is refused")
    return int(text)


def _place(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]+)\+([0-9]+)", text)
    if not match:
        refuse(f"a place is badly written: {text[:40]!r}")
    return _number(match[1]), _number(match[2])


def read(objects: Objects, oid: str) -> tuple[Skeleton, Iterator[bytes]]:
    """Read the skeleton of a tree, and the pieces of its literals."""
    files = objects.files(oid)
    tables, literals = _pieces(files, "table"), _pieces(files, "literal")
    require(len(tables) + len(literals) == len(files) and bool(tables), "a skeleton has other files")
    require(len(tables) <= MAX_TABLE // PIECE, "a table is too large")
    try:
        text = b"".join(_joined(objects, tables)).decode()
    except UnicodeDecodeError:
        refuse("a table is not UTF-8")
    require(text.startswith("theta skeleton 1\n") and text.endswith("\n"), "this is no table of segments")
    lines = text[:-1].split("\n")[1:]
    require(len(lines) <= MOST, "a table has too many segments")
    skeleton = Skeleton()
    for line in lines:
        skeleton.add(line)
    derived.check(skeleton.fields, skeleton.size)
    return skeleton, _joined(objects, literals)


def _pieces(files: dict[str, str], kind: str) -> list[str]:
    """Return the ids of pieces in order, which are numbered without gaps."""
    count = sum(name.startswith(f"{kind}.") for name in files)
    names = [f"{kind}.{number:04d}" for number in range(count)]
    require(all(name in files for name in names), f"a {kind} piece is missing")
    return [files[name] for name in names]


def _joined(objects: Objects, pieces: list[str]) -> Iterator[bytes]:
    for number, oid in enumerate(pieces, 1):
        raw = objects.blob(oid, PIECE)
        require(len(raw) == PIECE or (number == len(pieces) and len(raw) > 0), "a piece has another length")
        yield raw
