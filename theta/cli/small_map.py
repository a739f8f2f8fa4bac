"""The map of layers and kinds of modules in a terminal: a cell for each tensor, a spark for each layer."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from theta.cli.map_marks import BLOCKS, SAME, UNMEASURED, MapMarks, MapScale
from theta.cli.name_folding import shortened
from theta.git.quoting import visible
from theta.porcelain.studies.map_places import MapPlace, place_of

_LEAST: Final = 1e-6
_ROWS: Final = 48
_LABEL: Final = 44


def lines(
    values: Mapping[str, float | None],
    same: Iterable[str],
    width: int,
    marks: MapMarks = BLOCKS,
    *,
    in_colours: bool,
) -> Iterator[str]:
    """Yield the lines of a map of tensors' names -> values, nothing when there are no layers.

    None is a change without a number; ``same`` are names of tensors that did not change.  The first lines
    tell what marks mean.  Layers stand side by side as far as ``width`` allows; then several share a
    cell, which shows the largest value.
    """
    changed = _cells(values)
    cells = dict.fromkeys((place for place in map(place_of, same) if place.layer is not None), SAME) | changed
    layers = sorted({place.layer for place in cells if place.layer is not None})
    if len(layers) < 2 or not any(value >= 0 for value in changed.values()):
        return
    scale = _scale(changed.values(), marks, in_colours=in_colours)
    kinds = sorted({place.kind for place in changed})
    every = {place.kind for place in cells}
    shown = dict(zip(kinds, _labels(kinds[:_ROWS], every, max(min(_LABEL, width // 2), 8)), strict=False))
    last = f"layers {layers[0]} to {layers[-1]}"
    label = max(len(last), *map(len, shown.values()))
    rows = _MapRows(cells, *_columns(layers, max(width - label - 1, 1)))
    yield from scale.legend(set(cells.values()))
    for kind, name in shown.items():
        yield f"{name.ljust(label)} {''.join(scale.cell(value, rows.wide) for value in rows.of([kind]))}"
    yield from _left_out(len(kinds) - len(shown), len(every) - len(kinds))
    sparks = "".join(scale.spark(value, rows.wide) for value in rows.of(kinds))
    yield f"{last.ljust(label)} {sparks}"
    if (together := len(rows.groups[0])) > 1:
        yield f"{together} layers share a column, which shows the largest change."


@dataclass(frozen=True)
class _MapRows:
    """The cells of a map, the width of one, and the layers that share each column."""

    cells: Mapping[MapPlace, float]
    wide: int
    groups: list[list[int]]

    def of(self, kinds: Collection[str]) -> list[float | None]:
        """Return the largest value of ``kinds`` in each column, None for a column without any."""
        return [self._largest(kinds, group) for group in self.groups]

    def _largest(self, kinds: Collection[str], group: list[int]) -> float | None:
        places = (MapPlace(layer, kind) for layer in group for kind in kinds)
        return max((self.cells[place] for place in places if place in self.cells), default=None)


def _cells(values: Mapping[str, float | None]) -> dict[MapPlace, float]:
    """Return the largest value of each place in a layer; infinity for what is not finite."""
    cells: dict[MapPlace, float] = {}
    for name, value in values.items():
        if (place := place_of(name)).layer is not None:
            found = UNMEASURED if value is None else value if math.isfinite(value) else math.inf
            cells[place] = max(found, cells.get(place, UNMEASURED))
    return cells


def _scale(values: Collection[float], marks: MapMarks, *, in_colours: bool) -> MapScale:
    sizes = [value for value in values if 0 <= value < math.inf]
    most = max(sizes, default=0.0)
    low = max(min((value for value in sizes if value > 0), default=most), most * _LEAST)
    return MapScale(marks, low, most, in_colours)


def _labels(kinds: list[str], every: Collection[str], width: int) -> list[str]:
    """Return names for ``kinds`` without the words that ``every`` kind has in front."""
    shared = len(os.path.commonpath([f"/{kind.replace('.', '/')}" for kind in every])) - 1
    return shortened([visible(kind[shared:].lstrip("./") or kind) for kind in kinds], width)


def _columns(layers: list[int], room: int) -> tuple[int, list[list[int]]]:
    """Return the width of a cell, and the layers of each column."""
    wide, together = (2, 1) if 2 * len(layers) <= room else (1, math.ceil(len(layers) / room))
    return wide, [layers[k : k + together] for k in range(0, len(layers), together)]


def _left_out(more: int, still: int) -> Iterator[str]:
    if more:
        yield f"... and {more} more kinds"
    if still:
        yield f"({still} more {'kind is' if still == 1 else 'kinds are'} unchanged in all layers)"
