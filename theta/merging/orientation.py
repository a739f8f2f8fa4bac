"""Which matrices of a model are stored transposed: GPT-2's Conv1D keeps ``[in, out]``.

PEFT writes one flag, ``fan_in_fan_out``, for a whole adapter, and a model may have both kinds.  So each
matrix is asked: where it is not square its shape decides, and a square one follows its likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

WEIGHT: Final = ".weight"
_BIAS: Final = ".bias"
_NUMBER: Final = re.compile(r"(?<=[./])[0-9]+(?=[./])")

Shape = tuple[int, ...]


class Orientation:
    """What is known of the matrices of one checkpoint.

    Args:
        shapes: of the tensors of the checkpoint, by name.
        known: tensors of which it is known whether they are transposed.
        flag: what holds where nothing else tells.
    """

    def __init__(self, shapes: Mapping[str, Shape], known: Mapping[str, bool], flag: bool = False) -> None:
        self._flag, self._shapes = flag, shapes
        self._votes = dict(_by_bias(shapes)) | dict(known)
        turned = [name for name, vote in self._votes.items() if vote]
        self._only_with_biases = bool(turned) and all(_bias(name) in shapes for name in turned)

    def is_transposed(self, name: str) -> bool | None:
        """Whether tensor ``name`` is stored as ``[in, out]``; None when its likes lie both ways."""
        if name in self._votes:
            return self._votes[name]
        if _bias(name) not in self._shapes and self._only_with_biases:
            return False
        for like in (_module, _parent, _any):
            found = {vote for other, vote in self._votes.items() if like(other) == like(name)}
            if found:
                return found.pop() if len(found) == 1 else None
        return self._flag


def _by_bias(shapes: Mapping[str, Shape]) -> Iterable[tuple[str, bool]]:
    """A bias is as long as the side of its matrix that is the output."""
    for name, shape in shapes.items():
        bias = shapes.get(_bias(name), ())
        matrix = name.endswith(WEIGHT) and len(shape) == 2 and shape[0] != shape[1]
        if matrix and len(bias) == 1 and bias[0] in shape:
            yield name, bias[0] == shape[1]


def _bias(name: str) -> str:
    return name.removesuffix(WEIGHT) + _BIAS


def _module(name: str) -> str:
    """The last part of the module's name, such as ``c_proj``."""
    return re.split(r"[./]", name.removesuffix(WEIGHT))[-1]


def _parent(name: str) -> str:
    """What the module is in, in any layer: ``h.#.attn``."""
    return _NUMBER.sub("#", name.removesuffix(WEIGHT).rpartition(".")[0])


def _any(_: str) -> str:
    return ""
