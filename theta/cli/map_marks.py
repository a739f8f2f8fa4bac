"""The marks and colours of the map in a terminal, and the line that tells what they mean."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

SAME: Final = -2.0
"""The value of a cell whose tensors did not change."""
UNMEASURED: Final = -1.0
"""The value of a cell whose tensors changed, but have no number: new ones, for example."""


@dataclass(frozen=True)
class MapMarks:
    """The letters of a map: shades and sparks from little to much, the sign of what did not change."""

    shades: str
    sparks: str
    same: str


BLOCKS: Final = MapMarks("░▒▓█", "▁▂▃▄▅▆▇█", "·")
ASCII: Final = MapMarks("-+*#", "12345678", ".")
"""The marks for an output that cannot show blocks."""
_ODD, _NEW = "!", "?"
_COLOURS: Final = (67, 61, 97, 133, 132, 168, 167, 160)
"""Colours of terminals with 256, from blue to red, each legible on black and on white."""
_DIM, _ALARM, _END = "\x1b[2m", "\x1b[1;31m", "\x1b[m"


@dataclass(frozen=True)
class MapScale:
    """The way from a value to its mark: shades are logarithmic from ``low`` to ``most``, sparks linear."""

    marks: MapMarks
    low: float
    most: float
    in_colours: bool

    def cell(self, value: float | None, wide: int) -> str:
        """Return the mark of a value, ``wide`` times; spaces for None, where no tensor is."""
        return self._special(value, wide) or self._shade(self._level(value or 0.0), wide)

    def spark(self, value: float | None, wide: int) -> str:
        """Return the bar of a value."""
        share = (value or 0.0) / (self.most or 1.0)
        sparks = self.marks.sparks
        return self._special(value, wide) or sparks[round(min(share, 1.0) * (len(sparks) - 1))] * wide

    def legend(self, shown: Collection[float]) -> Iterator[str]:
        """Yield the lines that tell what the marks of the values ``shown`` mean."""
        same = f"{self.cell(SAME, 1)} unchanged  " if SAME in shown else ""
        yield f"{same}{self._ramp()}"
        words = ((UNMEASURED, "no number"), (math.inf, "not finite"))
        if rare := [f"{self.cell(value, 1)} {word}" for value, word in words if value in shown]:
            yield "  ".join(rare)

    def _ramp(self) -> str:
        if self.most <= self.low:
            return f"{self.cell(self.most, 1)} {100 * self.most:.3g}%"
        ramp = "".join(self._shade(level, 1) for level in range(len(_COLOURS)))
        return f"{ramp} {100 * self.low:.3g}% to {100 * self.most:.3g}% (logarithmic)"

    def _special(self, value: float | None, wide: int) -> str:
        if value is None:
            return " " * wide
        if value == SAME:
            return self._painted(_DIM, self.marks.same * wide)
        if value == UNMEASURED:
            return _NEW * wide
        return self._painted(_ALARM, _ODD * wide) if value == math.inf else ""

    def _level(self, value: float) -> int:
        """Return the step of the scale that a value is on."""
        last = len(_COLOURS) - 1
        if value <= self.low or self.most <= self.low:
            return last if value >= self.most > 0 else 0
        return round(math.log(value / self.low) / math.log(self.most / self.low) * last)

    def _shade(self, level: int, wide: int) -> str:
        mark = self.marks.shades[level * len(self.marks.shades) // len(_COLOURS)]
        return self._painted(f"\x1b[38;5;{_COLOURS[level]}m", mark * wide)

    def _painted(self, start: str, text: str) -> str:
        return f"{start}{text}{_END}" if self.in_colours else text
