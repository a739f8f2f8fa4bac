"""The values of the tensors of a file: whole extents, and views of parts of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

from theta._numpy import np
from theta.dtypes import DTYPES, numpy_dtype
from theta.errors import FormatError
from theta.formats.layout import Layout, Source, Tensor, View, clip, contiguous

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK: Final = 4 * 2**20
_WINDOW: Final = 64 * 2**20
"""The largest read in bytes without gaps: its chunks are decoded in parallel."""
_MOST_SPREAD: Final = 2**30
"""The largest array in bytes that may exceed its extent (strides of 0)."""

_BASIC: Final = "parts are named by whole numbers, slices, ... and None; numpy() takes other indices"

Key = SupportsIndex | slice | EllipsisType | None
"""An item of numpy's basic indices."""


@dataclass(frozen=True, slots=True)
class Strided:
    """A strided tensor in a file: element ``(i, j)`` is at byte ``start + i * strides[0] + j * strides[1]``.

    ``strides`` are in bytes and may be 0 or negative.  ``extent`` is (start, stop) of the bytes of the file
    that the tensor may read.
    """

    source: Source
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    extent: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """The bytes of the tensor as an array."""
        return DTYPES[self.dtype].nbytes(self.shape)

    @property
    def span(self) -> tuple[int, int]:
        """(start, stop) of the bytes between the lowest and the highest element.

        Raises :class:`FormatError` if they are not inside the extent.
        """
        if not self.nbytes:
            return self.start, self.start
        reach = [stride * (extent - 1) for extent, stride in zip(self.shape, self.strides, strict=True)]
        low = self.start + sum(step for step in reach if step < 0)
        high = self.start + sum(step for step in reach if step > 0) + DTYPES[self.dtype].itemsize
        if not self.extent[0] <= low <= high <= self.extent[1]:
            raise FormatError("a tensor is not inside its storage")
        return low, high

    def __getitem__(self, key: Key | tuple[Key, ...]) -> Strided:
        """Return the part that numpy's basic index ``key`` selects, without reading it.

        Raises ``IndexError``, and :class:`FormatError` for packed dtypes.
        """
        self._refuse_packed()
        shape: list[int] = []
        strides: list[int] = []
        start, axis = self.start, 0
        for item in self._spelled_out(key):
            if item is None:
                shape, strides = [*shape, 1], [*strides, 0]
                continue
            length, stride = self.shape[axis], self.strides[axis]
            axis += 1
            if isinstance(item, slice):
                chosen = range(*item.indices(length))
                shape, strides = [*shape, len(chosen)], [*strides, stride * chosen.step]
                start += stride * chosen.start if chosen else 0
            else:
                start += stride * _place(item, length, axis - 1)
        return replace(self, shape=tuple(shape), strides=tuple(strides), start=start)

    def _spelled_out(self, key: Key | tuple[Key, ...]) -> list[SupportsIndex | slice | None]:
        """Return one item for each axis, and None for each new axis."""
        items = list(key) if isinstance(key, tuple) else [key]
        holes = [number for number, item in enumerate(items) if item is Ellipsis]
        missing = len(self.shape) - sum(item is not None and item is not Ellipsis for item in items)
        if missing < 0 or len(holes) > 1:
            raise IndexError(f"too many indices for a tensor of {len(self.shape)} dimensions")
        at = holes[0] if holes else len(items)
        items[at : at + 1] = [slice(None)] * missing
        return [item for item in items if not isinstance(item, EllipsisType)]

    def array(self) -> NDArray[Any]:
        """Return the values in a new array; only bytes within 4 MiB of an element are read.

        Raises :class:`FormatError` for packed dtypes, which numpy does not have.
        """
        self._refuse_packed()
        if self.nbytes > max(_MOST_SPREAD, self.extent[1] - self.extent[0]):
            raise FormatError(f"a tensor of {self.nbytes} bytes shows far fewer bytes of the file")
        out = np.empty(self.shape, numpy_dtype(self.dtype))
        self.into(out)
        return out

    def into(self, out: NDArray[Any]) -> None:
        """Read the values into ``out``, an array of the same dtype and shape, of any strides.

        Raises :class:`FormatError` for packed dtypes.
        """
        self._refuse_packed()
        if out.size:
            self._ascending(out)

    def _ascending(self, out: NDArray[Any]) -> None:
        """Fill ``out`` in the order of the file."""
        back = [axis for axis, stride in enumerate(self.strides) if stride < 0]
        start = self.start + sum(self.strides[axis] * (self.shape[axis] - 1) for axis in back)
        strides = tuple(map(abs, self.strides))
        flipped = np.flip(out, tuple(back)) if back else out  # flip turns an array without axes into a scalar
        _fill(replace(self, start=start, strides=strides), flipped)

    def tobytes(self) -> bytes:
        """Return the elements in C order, little-endian; packed dtypes as they are stored."""
        if DTYPES[self.dtype].kind == "packed":
            return self.source.read(self.start, self.nbytes)
        return self.array().tobytes()

    def _refuse_packed(self) -> None:
        if DTYPES[self.dtype].kind == "packed":
            raise FormatError(f"numpy has no {self.dtype}", hint="tobytes() gives the packed bytes")


def _place(item: SupportsIndex, length: int, axis: int) -> int:
    """Return the non-negative index of ``item`` on an axis of ``length``; raises ``IndexError``."""
    try:
        number = operator.index(item)
    except TypeError as error:
        raise IndexError(_BASIC) from error
    if isinstance(item, bool):
        raise IndexError(_BASIC)
    if not -length <= number < length:
        raise IndexError(f"index {number} is out of bounds for axis {axis} with size {length}")
    return number % length


def _fill(part: Strided, out: NDArray[Any]) -> None:
    """Read ``part`` into ``out``, in blocks along the axis of the largest stride.

    A block with gaps spans at most 4 MiB, the size of a stored chunk, so that chunks without an element of
    the part are not decoded.
    """
    low, high = part.span
    limit = _WINDOW if high - low == part.nbytes else CHUNK
    if high - low <= limit:
        raw = part.source.read(low, high - low)
        out[...] = np.ndarray(part.shape, out.dtype, raw, part.start - low, part.strides)
        return
    axis = max((a for a, extent in enumerate(part.shape) if extent > 1), key=lambda a: part.strides[a])
    stride, length = part.strides[axis], part.shape[axis]
    within = high - low - stride * (length - 1)
    count = max(1, (limit - within) // stride + 1)
    before = (slice(None),) * axis
    for at in range(0, length, count):
        key = (*before, slice(at, min(at + count, length)))
        _fill(part[key], out[key])


@dataclass(frozen=True, slots=True)
class Value:
    """A contiguous little-endian tensor; ``chunks`` yields its bytes, at most 4 MiB at a time.

    ``place`` is its location in a file, for reading parts of it; None when it is in no file.
    """

    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[bytes]]
    place: Strided | None = None

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return DTYPES[self.dtype].nbytes(self.shape)


def side_by_side(left: Iterable[bytes], right: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of equally long pieces until one side ends; all pieces consist of whole elements."""
    left, right = filter(None, left), filter(None, right)
    one, other = next(left, b""), next(right, b"")
    while one and other:
        size = min(len(one), len(other))
        yield one[:size], other[:size]
        one, other = one[size:] or next(left, b""), other[size:] or next(right, b"")


def values(layout: Layout, source: Source) -> dict[str, Value]:
    """Return name -> value of all extents and views of ``layout`` in ``source``.

    A view with the name of its extent replaces the extent.
    """
    tensors = {tensor.name: tensor for tensor in layout.tensors}
    found = {tensor.name: _whole(tensor, source) for tensor in layout.tensors}
    for view in layout.views:
        if view.name in tensors and view.name != view.tensor:
            continue
        there = source if view.is_plain else _Computed(view.name, source.size)
        found[view.name] = seen(view, tensors[view.tensor], there)
    return found


@dataclass(frozen=True, slots=True)
class _Computed:
    """The source of a tensor whose elements are not those that are stored."""

    name: str
    size: int

    def read(self, *_: int) -> bytes:
        """Raise ``FormatError``."""
        raise FormatError(
            f"torch: {clip(self.name)} is conjugated, or negated, as it is read",
            hint="torch reads it: restore the file",
        )


def _whole(tensor: Tensor, source: Source) -> Value:
    extent = (tensor.offset, tensor.end)
    return Value(
        tensor.dtype,
        tensor.shape,
        lambda: _range(source, tensor.offset, tensor.length),
        Strided(source, tensor.dtype, tensor.shape, _steps(tensor), tensor.offset, extent),
    )


def _steps(tensor: Tensor | View) -> tuple[int, ...]:
    """Return the strides of ``tensor`` in bytes."""
    strides = tensor.strides if isinstance(tensor, View) else contiguous(tensor.shape)
    return tuple(stride * DTYPES[tensor.dtype].itemsize for stride in strides)


def seen(view: View, tensor: Tensor, source: Source) -> Value:
    """Return the value of ``view``; raises ``FormatError`` if it leaves ``tensor``, its extent."""
    itemsize = DTYPES[view.dtype].itemsize
    start = tensor.offset + view.offset * itemsize
    place = Strided(source, view.dtype, view.shape, _steps(view), start, (tensor.offset, tensor.end))
    if view.strides == contiguous(view.shape) or math.prod(view.shape) < 2:
        length = math.prod(view.shape) * itemsize
        if start + length > tensor.end and length:
            raise FormatError(f"tensor {clip(view.name)} is not inside its storage")
        return Value(view.dtype, view.shape, lambda: _range(source, start, length), place)
    return Value(view.dtype, view.shape, lambda: _gathered(source, view, tensor), place)


def _range(source: Source, start: int, length: int) -> Iterator[bytes]:
    for offset in range(start, start + length, CHUNK):
        yield source.read(offset, min(CHUNK, start + length - offset))


def _gathered(source: Source, view: View, tensor: Tensor) -> Iterator[bytes]:
    """Yield the elements of a strided view in C order; the bytes it spans are in memory."""
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
    """Yield parts of ``array`` of at most ``limit`` elements, in C order."""
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
