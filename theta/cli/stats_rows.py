"""The rows of ``theta diff --stats``, each printed when its tensor has been read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len

from theta.cli import console, screen
from theta.cli.name_folding import folded
from theta.git.quoting import visible
from theta.units import shape_text

if TYPE_CHECKING:
    from theta.porcelain.look.comparison import DiffRequest
    from theta.porcelain.look.diffing import Compared, Numbers
    from theta.store.changes import Change

_HEADS: Final = ("‖Δ‖/‖W‖", "cosine", "changed", "max|Δ|")
_NUMBERS: Final = (9, 9, 7, 9)
_GAP: Final = "  "
_NAME: Final = 16
"""Columns that a name has at least; for it dtype and then shape give way."""


class StatsRows:
    """Prints the rows of tensors; numbers and shapes are never broken, names are behind a dot."""

    def __init__(self, changes: Sequence[Change], summary: str, *, container: bool) -> None:
        self._palette = console.palette("diff")
        self._before = [summary, *(["File header or metadata also changed."] if container else [])]
        self._has_heads = False
        names = [cell_len(visible(_name(one))) for one in changes]
        shapes = max([5, *(len(_shape(one)) for one in changes)])
        dtypes = max([5, *(len(_dtype(one)) for one in changes)])
        self._rest = screen.width(whole=not console.on_screen()) - 3
        self._widths = _fitted(max([6, *names]), shapes, dtypes)

    def begin(self) -> None:
        """Print what stands above the rows, once."""
        lines, self._before = self._before, []
        if lines:
            console.out(*lines)

    def add(self, change: Change, numbers: Numbers | None) -> None:
        """Print one row."""
        self.begin()
        if not self._has_heads:
            self._has_heads = True
            console.out("".join(self._line("", ("tensor", "shape", "dtype"), _HEADS)).rstrip())
        first, *rest = folded(visible(_name(change)), self._widths[0], self._rest)
        words = (first, _shape(change), _dtype(change))
        letter = self._palette.letter(change.status)
        line = "".join(self._line(" ", words, _cells(numbers)))[1:].rstrip()
        console.out(f"{letter}{line}", *(f"   {part}" for part in rest), painted=True)

    def _line(self, letter: str, words: Sequence[str], numbers: Sequence[str]) -> Iterator[str]:
        yield letter.ljust(1)
        for text, width in zip(words, self._widths, strict=True):
            if width:
                yield _GAP + text + " " * (width - cell_len(text))
        for text, width in zip(numbers, _NUMBERS, strict=True):
            yield _GAP + text.rjust(width)


def of_checkpoint(item: Compared, request: DiffRequest) -> StatsRows:
    """Return the rows for the tensors of ``item`` that ``request`` selects."""
    found = item.changes
    kept = [change for change in found.tensors if request.wants(change)]
    container = bool(found.tensors and found.container)
    return StatsRows(kept, f"{item.path}: {found.summary()}", container=container)


def _fitted(name: int, shape: int, dtype: int) -> tuple[int, int, int]:
    """Return the widths of name, shape and dtype; 0 for one that has no room."""
    left = screen.width(whole=not console.on_screen()) - 1 - sum(_NUMBERS) - len(_GAP) * len(_NUMBERS)
    wanted = min(name, _NAME)
    for kept in ((shape, dtype), (shape, 0), (0, 0)):
        room = left - len(_GAP) - sum(width + len(_GAP) for width in kept if width)
        if room >= wanted:
            return min(name, room), *kept
    return max(min(name, left - len(_GAP)), 8), 0, 0


def _name(change: Change) -> str:
    return f"{change.old_name} → {change.name}" if change.old_name else change.name


def _shape(change: Change) -> str:
    return " → ".join(dict.fromkeys(shape_text(side.shape) for side in (change.old, change.new) if side))


def _dtype(change: Change) -> str:
    return " → ".join(dict.fromkeys(side.dtype for side in (change.old, change.new) if side))


def _cells(numbers: Numbers | None) -> tuple[str, ...]:
    if numbers is None:
        return ("",) * len(_NUMBERS)
    relative = f"{numbers.relative:.3%}" if abs(numbers.relative) < 100 else f"{100 * numbers.relative:.2e}%"
    return relative, f"{numbers.cosine:.6f}", f"{numbers.changed:.1%}", f"{numbers.largest:.3g}"
