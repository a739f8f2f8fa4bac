"""The map of layers and kinds of modules in a terminal: a cell for each tensor, a spark for each layer."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Final

from theta.git.quoting import visible
from theta.porcelain.studies.map_places import MapPlace, place_of

_SHADES: Final = "·░▒▓█"
_ODD: Final = "!"
"""The mark of a change that is infinite or no number."""
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_COLOURS: Final = (54, 55, 61, 67, 73, 72, 78, 113, 149, 226)
"""Colours of terminals with 256, from dark violet by green to yellow."""
_LEAST: Final = 1e-6
_ROWS: Final = 48
_LABEL: Final = 44


def lines(values: Mapping[str, float], width: int, *, in_colours: bool) -> Iterator[str]:
    """Yield the lines of a map of tensors' names -> values, nothing when there are no layers.

    Colours and shades are logarithmic.  Layers stand side by side as far as ``width`` allows; then
    several share a cell, which shows the largest value.
    """
    cells = _cells(values)
    layers = sorted({place.layer for place in cells if place.layer is not None})
    kinds = sorted({place.kind for place in cells if place.layer is not None})
    if len(layers) < 2 or not kinds:
        return
    shared = len(os.path.commonpath([f"/{kind.replace('.', '/')}" for kind in kinds])) - 1
    names = {kind: visible(kind[shared:].lstrip("./") or kind) for kind in kinds}
    label = min(max(map(len, names.values())), _LABEL, max(width // 2, 8))
    room = max(width - label - 1, 1)
    wide, together = (2, 1) if 2 * len(layers) <= room else (1, math.ceil(len(layers) / room))
    groups = [layers[k : k + together] for k in range(0, len(layers), together)]
    sizes = [value for value in cells.values() if math.isfinite(value)]
    most = max(sizes, default=0.0)
    low = max(min((value for value in sizes if value > 0), default=most), most * _LEAST)

    def share(kind: str, group: list[int]) -> float | None:
        found = [cells[MapPlace(layer, kind)] for layer in group if MapPlace(layer, kind) in cells]
        return _share(max(found), low, most) if found else None

    for kind in kinds[:_ROWS]:
        drawn = (_drawn(share(kind, group), wide, in_colours=in_colours) for group in groups)
        yield f"{_fitted(names[kind], label)} {''.join(drawn)}"
    if len(kinds) > _ROWS:
        yield f"... and {len(kinds) - _ROWS} more kinds"
    tops = [
        min(most, max(cells.get(MapPlace(layer, kind), 0.0) for layer in group for kind in kinds))
        for group in groups
    ]
    sparks = (_SPARKS[round(top / (most or 1.0) * (len(_SPARKS) - 1))] * wide for top in tops)
    yield f"{_fitted(f'layers {layers[0]} to {layers[-1]}', label)} {''.join(sparks)}"


def _cells(values: Mapping[str, float]) -> dict[MapPlace, float]:
    cells: dict[MapPlace, float] = {}
    for name, value in values.items():
        place = place_of(name)
        cells[place] = max(value if math.isfinite(value) else math.inf, cells.get(place, 0.0))
    return cells


def _share(value: float, low: float, most: float) -> float:
    if value == math.inf:
        return value
    if value <= low or most <= low:
        return 1.0 if value >= most > 0 else 0.0
    return math.log(value / low) / math.log(most / low)


def _drawn(share: float | None, wide: int, *, in_colours: bool) -> str:
    if share is None:
        return " " * wide
    if share == math.inf:
        return f"\x1b[31m{_ODD * wide}\x1b[m" if in_colours else _ODD * wide
    if in_colours:
        return f"\x1b[38;5;{_COLOURS[round(share * (len(_COLOURS) - 1))]}m{'█' * wide}\x1b[m"
    return _SHADES[round(share * (len(_SHADES) - 1))] * wide


def _fitted(text: str, width: int) -> str:
    return f"…{text[1 - width :]}" if len(text) > width else text.ljust(width)
