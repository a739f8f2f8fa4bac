"""The place of a tensor on the map of a model: its layer, and the kind of its module."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NUMBER: Final = re.compile(r"(?<![0-9A-Za-z])[0-9]{1,6}(?![0-9A-Za-z])")


@dataclass(frozen=True)
class MapPlace:
    """The layer of a tensor, None outside of all layers, and its name without numbers."""

    layer: int | None
    kind: str


def place_of(name: str) -> MapPlace:
    """Return the place of tensor ``name``.

    The first number between dots is the layer; later ones, such as those of experts, are ``*``:
    ``model.layers.3.mlp.experts.7.up_proj.weight`` is ``model.layers.mlp.experts.*.up_proj.weight`` of
    layer 3.
    """
    first = _NUMBER.search(name)
    if first is None:
        return MapPlace(None, name)
    rest = name[first.end() :].lstrip("./")
    kind = name[: first.start()] + _NUMBER.sub("*", rest)
    return MapPlace(int(first[0]), kind.rstrip("./") or name)
