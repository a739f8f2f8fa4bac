"""Arrays of a program as bytes that are written to in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theta import dtypes
from theta._numpy import np
from theta.api import destinations
from theta.errors import UsageError
from theta.formats.layout import clip
from theta.lazy import imported
from theta.porcelain.replicas.memory_copies import ArrayBytes, MemoryTarget


def target(value: Any) -> MemoryTarget:
    """Return a mapping of arrays, or a buffer such as that of a shared-memory map, as what is written to.

    Raises :class:`UsageError` for what cannot be written in place.
    """
    if isinstance(value, Mapping):
        return {name: _bytes(name, array) for name, array in destinations.flat(value)}
    try:
        view = memoryview(value).cast("B")
    except TypeError as error:
        raise UsageError(f"a {type(value).__name__} is neither a mapping of arrays nor a buffer") from error
    if view.readonly:
        raise UsageError("the buffer cannot be written to")
    return view


def _bytes(name: str, value: Any) -> ArrayBytes:
    """Return the bytes of an array; one of another device, or with strides, has none to write to."""
    torch = imported("torch")
    if torch is not None and isinstance(value, torch.Tensor) and value.device.type != "cpu":
        raise UsageError(f"{clip(name)} is on another device", hint="apply to a copy on the CPU")
    array = destinations.destination(name, value).array
    if not array.flags.c_contiguous or array.dtype.byteorder == ">":
        raise UsageError(f"{clip(name)} is not contiguous, or big-endian", hint="apply to a plain copy")
    try:
        dtype = dtypes.name_of(array.dtype)
    except KeyError as error:
        raise UsageError(f"no checkpoint has tensors of {array.dtype}, the type of {clip(name)}") from error
    view: Any = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
    return ArrayBytes(dtype, array.shape, memoryview(view))
