"""Small tensors that are one step from a value that a copy has.

Most tensors of a training step have one chunk, which is stored as its differences to the value before.
Preparing to read all their layers takes longer than adding the differences.  So the payload is decoded on the
bytes of the copy, with nothing beside them.  The result is not believed: the digest of the chunk proves it,
or the tensor is decoded through its layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from theta.errors import ThetaError
from theta.lazy import Module
from theta.store.format import tensor_tree
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import Objects
from theta.store.read.layers import HeldValue

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.codecs import residual, steps
    from theta.codecs.moves import nudges

    Words = NDArray[Any]
else:
    nudges = Module("theta.codecs.moves.nudges")
    residual = Module("theta.codecs.residual")
    steps = Module("theta.codecs.steps")

_DECODERS: Final[Mapping[str, Callable[[memoryview, Words, str], Words]]] = {
    "delta/1": lambda payload, base, dtype: residual.decode(payload, base, dtype),
    "nudges/1": lambda payload, base, dtype: nudges.decode(payload, base, dtype),
    "steps/1": lambda payload, base, dtype: steps.decode(payload, base, dtype),
}
"""The codecs whose chunks need the same words of the base alone."""


def payload_of(record: Record, held: int) -> str | None:
    """Return the blob of the one chunk of ``record`` if that is a step from layer ``held``; else None."""
    if len(record.chunks) != 1:
        return None
    top = record.layers[-1]
    below = record.layers[held]
    if top.base != held or top.codec not in _DECODERS or (below.dtype, below.shape) != (top.dtype, top.shape):
        return None
    return record.files.get(tensor_tree.file_name(len(record.layers) - 1, 0))


def value(objects: Objects, record: Record, payload: str, held: HeldValue) -> memoryview | None:
    """Return the value of ``record`` as ``payload`` tells it, to be proven; None if that is damaged."""
    with contextlib.suppress(ThetaError):
        base = held.chunk(0)
        decode = _DECODERS[record.layers[-1].codec]
        return decode(memoryview(objects.chunk(payload)), base, record.dtype).data.cast("B")
    return None
