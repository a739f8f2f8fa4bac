"""The layout of a file: the types that all format readers share.

A reader never decodes a file.  It returns a :class:`Layout`, the extents of the tensors in file order.
Every byte outside an extent is skeleton.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from theta.dtypes import DTYPES
from theta.errors import FormatError
from theta.formats.fields import Derived, check_fields

MAX_NAME_BYTES: Final = 64 * 1024
MAX_RANK: Final = 64
MAX_TENSORS: Final = 1_000_000
MAX_SIZE: Final = 2**63 - 1


class Source(Protocol):
    """Random access to the bytes of one file."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``; raises an error beyond the end."""
        ...


@runtime_checkable
class Placed(Protocol):
    """A source that is a file in a directory."""

    @property
    def name(self) -> str:
        """The name of the file."""
        ...

    def sibling(self, name: str) -> bytes | None:
        """Return the content of file ``name`` in the same directory; None when it is missing or large."""
        ...


@runtime_checkable
class Resident(Protocol):
    """A source whose values are in memory, and may be let go of one by one."""

    def view(self, offset: int, length: int) -> memoryview:
        """Return exactly ``length`` bytes from ``offset``, not copied if they are in one piece."""
        ...

    def forget(self, offset: int, length: int) -> None:
        """Let go of the value of ``length`` bytes at ``offset``, which is not read again."""
        ...


@dataclass(frozen=True, slots=True)
class BytesSource:
    """A file in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``; raises ``FormatError`` outside the data."""
        if offset < 0 or length < 0 or offset + length > len(self.data):
            raise FormatError(f"read of {length} bytes at {offset} in a file of {len(self.data)} bytes")
        return self.data[offset : offset + length]


@dataclass(frozen=True, slots=True)
class Window:
    """A part of another source, such as a file inside an archive."""

    source: Source
    start: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``; raises ``FormatError`` outside the part."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(f"read of {length} bytes at {offset} in a part of {self.size} bytes")
        return self.source.read(self.start + offset, length)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The name, dtype and shape of a tensor to write; ``dtype`` is a name of :mod:`theta.dtypes`."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that is an extent of a file: ``length`` raw bytes from ``offset``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Offset of the first byte after the extent."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class View:
    """A tensor that programs see as a part of an extent: tied, transposed or sliced.

    ``tensor`` is the name of the extent; ``strides`` and ``offset`` are in elements of ``dtype``.
    Readers list a view only if it differs from the whole extent in name, dtype, shape or strides.
    Every element is inside the extent, but with strides of 0 there may be far more elements than bytes.
    """

    name: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    is_plain: bool = True
    """Whether its elements are those of the extent: not conjugated or negated as they are read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of a file of ``size`` bytes, in file order; all other bytes are skeleton.

    ``derived`` are skeleton fields that need not be stored.  ``views`` are for reading values; restoring a
    file does not need them.
    """

    format: str
    size: int
    tensors: tuple[Tensor, ...]
    derived: tuple[Derived, ...] = ()
    views: tuple[View, ...] = ()

    def validate(self) -> None:
        """Raise ``FormatError`` unless the extents are inside the file, ordered, disjoint and well-formed.

        Derived fields are checked likewise, and that they can be computed in their order.
        """
        if len(self.tensors) > MAX_TENSORS:
            raise FormatError(f"{len(self.tensors)} tensors; the limit is {MAX_TENSORS}")
        position = 0
        names: set[str] = set()
        for tensor in self.tensors:
            check_tensor(tensor)
            if tensor.name in names:
                raise FormatError(f"two tensors are named {clip(tensor.name)}")
            names.add(tensor.name)
            if tensor.offset < position:
                raise FormatError(f"tensor {clip(tensor.name)} overlaps the one before it")
            position = tensor.end
        if position > self.size:
            raise FormatError(f"the tensors end at byte {position} of a file of {self.size} bytes")
        if self.derived:
            extents = [(tensor.offset, tensor.end) for tensor in self.tensors if tensor.length]
            check_fields(self.size, extents, self.derived)

    def gaps(self) -> Iterator[tuple[int, int]]:
        """Yield ``(offset, length)`` of each non-empty run of skeleton bytes, in file order."""
        return _between([(tensor.offset, tensor.end) for tensor in self.tensors], self.size)

    def literals(self) -> Iterator[tuple[int, int]]:
        """Yield the gaps without the derived fields: the skeleton bytes that must be stored."""
        taken = [(tensor.offset, tensor.end) for tensor in self.tensors]
        return _between(sorted(taken + [(field.offset, field.end) for field in self.derived]), self.size)


def _between(taken: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    position = 0
    for start, end in taken:
        if start == end:
            continue
        if start > position:
            yield position, start - position
        position = end
    if size > position:
        yield position, size - position


def check_name(name: str) -> None:
    """Raise ``FormatError`` for a name that a manifest cannot hold."""
    if not name:
        raise FormatError("a tensor has an empty name")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise FormatError("a tensor name is not valid unicode") from error
    if len(encoded) > MAX_NAME_BYTES:
        raise FormatError(f"a tensor name has {len(encoded)} bytes; the limit is {MAX_NAME_BYTES}")


def check_tensor(tensor: Tensor) -> None:
    """Raise ``FormatError`` unless name, dtype, shape and length of ``tensor`` are valid."""
    check_name(tensor.name)
    if tensor.offset < 0:
        raise FormatError(f"tensor {clip(tensor.name)} begins before the file")
    expected = nbytes(tensor.name, tensor.dtype, tensor.shape)
    if tensor.length != expected:
        raise FormatError(
            f"tensor {clip(tensor.name)} has {tensor.length} bytes, its dtype and shape need {expected}"
        )


def nbytes(name: str, dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor.

    Raises ``FormatError`` for an unknown dtype, bad dimensions, overflow or an incomplete last byte.
    """
    entry = DTYPES.get(dtype)
    if entry is None:
        raise FormatError(f"tensor {clip(name)} has the unknown dtype {clip(dtype)}")
    if len(shape) > MAX_RANK:
        raise FormatError(f"tensor {clip(name)} has {len(shape)} dimensions; the limit is {MAX_RANK}")
    bits = entry.bits
    for dimension in shape:
        # Every partial product is checked: readers in C overflow even if a later dimension is zero.
        bits *= dimension
        if dimension < 0 or bits > MAX_SIZE:
            raise FormatError(f"tensor {clip(name)} has an impossible shape")
    if bits % 8:
        raise FormatError(f"tensor {clip(name)} does not fill whole bytes")
    return bits // 8


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a contiguous tensor of ``shape``."""
    strides: list[int] = []
    step = 1
    for dimension in reversed(shape):
        strides.append(step)
        step *= max(dimension, 1)
    return tuple(reversed(strides))


def clip(text: str, limit: int = 60) -> str:
    """Return ``text`` quoted on one line and shortened, for error messages."""
    return ascii(text if len(text) <= limit else text[:limit] + "...")
