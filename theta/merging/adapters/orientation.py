"""Detecting the matrices of a model that are stored transposed, as ``[in, out]``, like GPT-2's Conv1D.

PEFT writes one flag, ``fan_in_fan_out``, for a whole adapter, but a model may have both kinds.  So each
matrix is examined: the shape decides if it is not square, and a square one is treated like similar ones.
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
    """The orientation of the matrices of one checkpoint.

    Args:
        shapes: name -> shape of the tensors of the checkpoint.
        known: name -> whether the tensor is transposed, if that is known.
        flag: the default.
    """

    def __init__(self, shapes: Mapping[str, Shape], known: Mapping[str, bool], flag: bool = False) -> None:
        self._flag, self._shapes = flag, shapes
        self._votes = dict(_by_bias(shapes)) | dict(known)
        turned = [name for name, vote in self._votes.items() if vote]
        self._only_with_biases = bool(turned) and all(_bias(name) in shapes for name in turned)

    def is_transposed(self, name: str) -> bool | None:
        """Return whether tensor ``name`` is stored as ``[in, out]``; None when similar ones differ."""
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
    """Yield (name, whether transposed) of matrices with a bias, whose length is that of the output."""
    for name, shape in shapes.items():
        bias = shapes.get(_bias(name), ())
        matrix = name.endswith(WEIGHT) and len(shape) == 2 and shape[0] != shape[1]
        if matrix and len(bias) == 1 and bias[0] in shape:
            yield name, bias[0] == shape[1]


def _bias(name: str) -> str:
    return name.removesuffix(WEIGHT) + _BIAS


def _module(name: str) -> str:
    """Return the last part of the module's name, such as ``c_proj``."""
    return re.split(r"[./]", name.removesuffix(WEIGHT))[-1]


def _parent(name: str) -> str:
    """Return the parent of the module with ``#`` for layer numbers: ``h.#.attn``."""
    return _NUMBER.sub("#", name.removesuffix(WEIGHT).rpartition(".")[0])


def _any(_: str) -> str:
    return ""
