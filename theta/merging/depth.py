"""The relative depth of a tensor in its model, for parameters that vary with the layer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_PARTS: Final = re.compile(r"[./]")
_NUMBERED: Final = re.compile(r"(.*?)([0-9]{1,6})")


def positions(names: Iterable[str]) -> dict[str, float]:
    """Return name -> depth, from 0 for the first layer to 1 for the last (mergekit's rule).

    The layer is the first part of the name, except the last part, that is a number or ends in one: 7 in
    ``layers.7.mlp.weight``.  A tensor in no layer has depth 0, a single layer has depth 1.
    """
    found = {name: _layer(name) for name in names}
    last: dict[str, int] = {}
    for place in found.values():
        if place is not None:
            last[place[0]] = max(last.get(place[0], 0), place[1])
    return {name: _position(place, last) for name, place in found.items()}


def _layer(name: str) -> tuple[str, int] | None:
    """Return the prefix before the number of the layer, and the number; None without one."""
    parts = _PARTS.split(name)
    for count, part in enumerate(parts[:-1]):
        numbered = _NUMBERED.fullmatch(part)
        if numbered is not None and (not numbered[1] or numbered[1].endswith("_")):
            return ".".join([*parts[:count], numbered[1]]), int(numbered[2])
    return None


def _position(place: tuple[str, int] | None, last: dict[str, int]) -> float:
    if place is None:
        return 0.0
    return place[1] / last[place[0]] if last[place[0]] else 1.0
