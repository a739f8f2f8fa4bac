"""Long names of tensors in little room: folded, or cut, behind a dot and not inside a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from rich.cells import cell_len, chop_cells
from rich.text import Text

_PART: Final = re.compile(r"[^./]*[./]+|[^./]+")
ELLIPSIS: Final = "…"


def folded(name: str, width: int, rest: int | None = None) -> list[str]:
    """Return ``name`` in pieces of at most ``width`` columns, those behind the first of ``rest``.

    Pieces end behind dots and slashes as far as ``width`` allows.
    """
    pieces, line, room = [], "", width
    for part in _PART.findall(name):
        if line and cell_len(line + part) > room:
            pieces.append(line)
            line, room = "", rest or width
        line += part
        while cell_len(line) > room:
            first = chop_cells(line, room)[0]
            pieces.append(first)
            line, room = line[len(first) :], rest or width
    return [*pieces, line] if line or not pieces else pieces


class FoldedName(Text):
    """A name in a table of rich, which breaks it where :func:`folded` does."""

    def wrap(self, console: Any, width: int, **options: Any) -> Any:
        """Return the lines of the name."""
        offsets, at = [], 0
        for piece in folded(self.plain, width)[:-1]:
            at += len(piece)
            offsets.append(at)
        lines = self.divide(offsets)
        lines.justify(console, width, justify=options.get("justify") or "left")
        return lines


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Return ``names``, each in at most ``width`` columns and all different if that is possible.

    An ellipsis stands for words in front, or behind the first words where names would be alike otherwise.
    """
    found: list[str] = []
    for head in range(3):
        found = [_shortened(name, width, head) for name in names]
        if len(set(found)) == len(set(names)):
            break
    return found


def _shortened(name: str, width: int, head: int) -> str:
    if cell_len(name) <= width:
        return name
    parts = _PART.findall(name)
    front = "".join(parts[:head]) + ELLIPSIS
    for start in range(head + 1, len(parts)):
        if cell_len(text := front + "".join(parts[start:])) <= width:
            return text
    if head:
        return _shortened(name, width, head - 1)
    return ELLIPSIS + chop_cells(name[::-1], max(width - 1, 1))[0][::-1]
