"""The tensors of a file as programs see them: whole extents, and views of parts of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from theta.dtypes import DTYPES
from theta.errors import FormatError
from theta.formats.layout import Layout, Source, Tensor, View, clip, contiguous

CHUNK: Final = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor, contiguous and little-endian; ``chunks`` gives its bytes, at most 4 MiB at a time."""

    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[bytes]]

    @property
    def nbytes(self) -> int:
        """Raw bytes."""
        return DTYPES[self.dtype].nbytes(self.shape)


def values(layout: Layout, source: Source) -> dict[str, Value]:
    """Name -> tensor, of all that ``layout`` finds in ``source``: extents, and views under other names.

    Where a view bears the name of its extent, it is what programs see, and the extent is left out.
    """
    tensors = {tensor.name: tensor for tensor in layout.tensors}
    found = {tensor.name: _whole(tensor, source) for tensor in layout.tensors}
    for view in layout.views:
        if view.name in tensors and view.name != view.tensor:
            continue
        found[view.name] = _seen(view, tensors[view.tensor], source)
    return found


def _whole(tensor: Tensor, source: Source) -> Value:
    return Value(tensor.dtype, tensor.shape, lambda: _range(source, tensor.offset, tensor.length))


def _seen(view: View, tensor: Tensor, source: Source) -> Value:
    itemsize = DTYPES[view.dtype].itemsize
    if view.strides == contiguous(view.shape) or math.prod(view.shape) < 2:
        start = tensor.offset + view.offset * itemsize
        length = math.prod(view.shape) * itemsize
        if start + length > tensor.end and length:
            raise FormatError(f"tensor {clip(view.name)} is not inside its storage")
        return Value(view.dtype, view.shape, lambda: _range(source, start, length))
    return Value(view.dtype, view.shape, lambda: _gathered(source, view, tensor))


def _range(source: Source, start: int, length: int) -> Iterator[bytes]:
    for offset in range(start, start + length, CHUNK):
        yield source.read(offset, min(CHUNK, start + length - offset))


def _gathered(source: Source, view: View, tensor: Tensor) -> Iterator[bytes]:
    """The elements of a strided view in their order; the whole extent is in memory meanwhile."""
    import numpy as np

    itemsize = DTYPES[view.dtype].itemsize
    last = view.offset + sum(s * (d - 1) for s, d in zip(view.strides, view.shape, strict=True))
    if (last + 1) * itemsize > tensor.length:
        raise FormatError(f"tensor {clip(view.name)} is not inside its storage")
    start = tensor.offset + view.offset * itemsize
    flat = np.frombuffer(source.read(start, (last + 1 - view.offset) * itemsize), f"V{itemsize}")
    seen: Any = np.lib.stride_tricks.as_strided(
        flat, view.shape, [stride * itemsize for stride in view.strides], writeable=False
    )
    for block in _blocks(seen, max(1, CHUNK // itemsize)):
        yield block.tobytes()


def _blocks(array: Any, limit: int) -> Iterator[Any]:
    """Parts of ``array``, in its order, of at most ``limit`` elements."""
    if array.size <= limit:
        yield array
        return
    row = array.size // array.shape[0]
    if row > limit:
        for part in array:
            yield from _blocks(part, limit)
        return
    step = limit // row
    for at in range(0, array.shape[0], step):
        yield array[at : at + step]
