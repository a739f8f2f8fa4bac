"""Small tensors that are one step from a value that a copy has.

Most tensors of a training step have one chunk, which is stored as its differences to the value before.
Preparing to read all their layers takes longer than adding the differences.  So the payload is decoded on the
bytes of the copy, with nothing beside them.  Its tables are read before, in a row with those of the other
tensors, since large words take all that this needs out of the caches.  The result is not believed: the digest
of the chunk proves it, or the tensor is decoded through its layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from theta.codecs.base import word_size
from theta.errors import ThetaError
from theta.lazy import Module
from theta.store.format import tensor_tree
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import Objects
from theta.store.read.layers import HeldValue
from theta.store.read.reassembly import Unproven

if TYPE_CHECKING:
    from theta.codecs import residual, steps
    from theta.codecs.base import OnBase
    from theta.codecs.moves import nudges
else:
    nudges = Module("theta.codecs.moves.nudges")
    residual = Module("theta.codecs.residual")
    steps = Module("theta.codecs.steps")

_CODECS: Final[Mapping[str, Callable[[memoryview, int, str], OnBase]]] = {
    "delta/1": lambda payload, _, dtype: lambda base: residual.decode(payload, base, dtype),
    "nudges/1": lambda payload, size, dtype: nudges.ready(payload, size, dtype),
    "steps/1": lambda payload, size, dtype: steps.ready(payload, size, dtype),
}
"""The codecs whose chunks need the same words of the base alone."""


def payload_of(record: Record, held: int) -> str | None:
    """Return the blob of the one chunk of ``record`` if that is a step from layer ``held``; else None."""
    if len(record.chunks) != 1:
        return None
    top = record.layers[-1]
    below = record.layers[held]
    if top.base != held or top.codec not in _CODECS or (below.dtype, below.shape) != (top.dtype, top.shape):
        return None
    return record.files.get(tensor_tree.file_name(len(record.layers) - 1, 0))


def ready(objects: Objects, record: Record, payload: str, held: HeldValue) -> Unproven:
    """Read ``payload`` and its tables; return what makes of it the value of ``record``, to be proven.

    That returns None if the payload is damaged.
    """
    try:
        size = held.lengths[0] // word_size(record.dtype)
        decode = _CODECS[record.layers[-1].codec](memoryview(objects.chunk(payload)), size, record.dtype)
    except ThetaError:
        return lambda: None

    def value() -> memoryview | None:
        with contextlib.suppress(ThetaError):
            return decode(held.chunk(0)).data.cast("B")
        return None

    return value
