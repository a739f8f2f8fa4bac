"""Arrays of a program as bytes that can be written to."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from theta import dtypes
from theta._numpy import np
from theta.errors import UsageError
from theta.formats.layout import clip
from theta.porcelain.replicas.memory_copies import ArrayBytes, MemoryTarget


def target(value: Any) -> MemoryTarget:
    """Return a mapping of arrays, or a buffer such as that of a shared-memory map, as what is written to.

    Raises :class:`UsageError` for what cannot be written in place.
    """
    if isinstance(value, Mapping):
        return {name: _bytes(name, array) for name, array in _flat(value)}
    try:
        view = memoryview(value).cast("B")
    except TypeError as error:
        raise UsageError(f"a {type(value).__name__} is neither a mapping of arrays nor a buffer") from error
    if view.readonly:
        raise UsageError("the buffer cannot be written to")
    return view


def _flat(value: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the arrays of nested mappings with their names, joined by dots, as a save does it."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _bytes(name: str, value: Any) -> ArrayBytes:
    torch = sys.modules.get("torch")
    try:
        array = _of_torch(torch, value) if torch is not None and isinstance(value, torch.Tensor) else None
        if array is None and isinstance(value, np.ndarray):
            dtype = dtypes.name_of(value.dtype)
            if value.dtype.byteorder == ">":
                raise ValueError("big-endian")
            array = ArrayBytes(dtype, value.shape, _whole(value))
    except (KeyError, ValueError, StopIteration) as error:
        raise UsageError(f"the array {clip(name)} cannot be written in place: {error}") from error
    if array is None:
        raise UsageError(
            f"{clip(name)} is a {type(value).__name__}, not an array of numpy or a tensor of torch"
        )
    return array


def _whole(array: Any) -> memoryview:
    """Return the bytes of an array of numpy; raises :class:`ValueError` unless they lie in one row."""
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError("it is not contiguous, or read-only")
    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(bytearray())


def _of_torch(torch: Any, value: Any) -> ArrayBytes:
    if value.device.type != "cpu" or not value.is_contiguous():
        raise ValueError("it is on another device, or not contiguous")
    kind = str(value.dtype).removeprefix("torch.")
    dtype = next(entry.name for entry in dtypes.DTYPES.values() if entry.numpy_name == kind)
    return ArrayBytes(dtype, tuple(value.shape), _whole(value.detach().view(-1).view(torch.uint8).numpy()))
