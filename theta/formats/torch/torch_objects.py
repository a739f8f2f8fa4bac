"""Naming the storages of a torch checkpoint by a walk through the symbolic objects of its pickle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from theta.dtypes import DTYPES
from theta.errors import FormatError
from theta.formats.layout import MAX_RANK, MAX_SIZE, Tensor, View, contiguous
from theta.formats.pickle.object_walk import walk
from theta.formats.pickle.pickle_vm import Call, Dict, Global, Persistent

_STORAGE_MODULES: Final = ("torch", "torch.storage", "torch.cuda")
_STORAGES: Final = {
    "DoubleStorage": "f64",
    "FloatStorage": "f32",
    "HalfStorage": "f16",
    "BFloat16Storage": "bf16",
    "LongStorage": "i64",
    "IntStorage": "i32",
    "ShortStorage": "i16",
    "CharStorage": "i8",
    "ByteStorage": "u8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "c64",
    "QInt8Storage": "i8",
    "QUInt8Storage": "u8",
    "QInt32Storage": "i32",
}
# numpy and torch have the same names of dtypes; ``bytes`` is uint8 in numpy, and the last in the table.
_DTYPES: Final = {entry.numpy_name: name for name, entry in reversed(DTYPES.items()) if entry.numpy_name}
_WIDE: Final = {"ComplexDoubleStorage": 16, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1, "UntypedStorage": 1}
# Attributes in which torch keeps the children of a module; they are not part of users' names.
_HIDDEN: Final = frozenset({"_parameters", "_buffers", "_modules"})
_REBUILD: Final = frozenset(
    {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor"}
)
_REBUILD_PARAMETER: Final = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})


@dataclass(frozen=True, slots=True)
class RawStorage:
    """Offset and length in bytes of a storage."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A tensor in the pickle, which is a view of the storage ``key``."""

    name: str
    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    is_plain: bool = True
    """Whether the elements are those of the storage: not conjugated, negated or scaled as they are read."""
    is_scaled: bool = False
    """Whether it is quantized: its elements are the numbers that are stored, and stand for others."""


def name_storages(
    root: object,
    storages: Mapping[str, RawStorage],
    big_endian: bool,
    size: int,
    tensor_of: Callable[[object], object] = lambda value: value,
) -> tuple[tuple[Tensor, ...], tuple[View, ...]]:
    """Return the extents of ``storages`` in file order, named after the tensors in ``root``, and views.

    A storage without a tensor is named ``storages.KEY`` and has dtype bytes.  ``size`` is that of the file
    and limits the length of all names together.  ``tensor_of`` maps an object to the call that would
    rebuild its tensor.
    """
    leaves: dict[str, list[_Leaf]] = {}
    for name, leaf in walk(root, lambda value: _leaf(tensor_of(value)), size, _HIDDEN):
        if leaf.key in storages:
            leaves.setdefault(leaf.key, []).append(replace(leaf, name=name or "tensor"))
    taken: set[str] = set()
    tensors: list[Tensor] = []
    views: list[View] = []
    for key, raw in sorted(storages.items(), key=lambda item: (item[1].offset, item[1].length)):
        tensor = _extent(key, raw, leaves.get(key, []), taken, big_endian)
        taken.add(tensor.name)
        tensors.append(tensor)
        if tensor.dtype != "bytes":
            views.extend(_views(tensor, leaves[key]))
    return tuple(tensors), tuple(views)


def view_of(value: object) -> View | None:
    """Return the tensor that a call would rebuild, as a view of the storage ``tensor``, or None.

    Raises ``FormatError`` for one whose elements are not those of the storage.
    """
    leaf = _leaf(value)
    if leaf is None:
        return None
    if not leaf.is_plain:
        raise FormatError("torch: the object has a tensor that is quantized, or conjugated as it is read")
    return View(leaf.name, leaf.key, leaf.dtype, leaf.shape, leaf.strides, leaf.offset)


def element_size(storage: object) -> int:
    """Return the bytes of one element of a typed storage; 0 for a class that is not torch's."""
    if not isinstance(storage, Global) or storage.module not in _STORAGE_MODULES:
        return 0
    if storage.name in _WIDE:
        return _WIDE[storage.name]
    return DTYPES[_STORAGES[storage.name]].itemsize if storage.name in _STORAGES else 0


def _extent(key: str, raw: RawStorage, leaves: list[_Leaf], taken: set[str], big_endian: bool) -> Tensor:
    for leaf in sorted(leaves, key=lambda leaf: not _is_whole(leaf, raw)):
        if leaf.name in taken:
            continue
        itemsize = DTYPES[leaf.dtype].itemsize
        if leaf.dtype == "bytes" or raw.length % itemsize:
            return Tensor(leaf.name, "bytes", (raw.length,), raw.offset, raw.length)
        shape = _physical(leaf) if _is_whole(leaf, raw) else (raw.length // itemsize,)
        if big_endian and itemsize > 1:
            return Tensor(leaf.name, "bytes", (*shape, itemsize), raw.offset, raw.length)
        return Tensor(leaf.name, leaf.dtype, shape, raw.offset, raw.length)
    name = f"storages.{key}"
    while name in taken:
        name += "~"
    return Tensor(name, "bytes", (raw.length,), raw.offset, raw.length)


def _is_whole(leaf: _Leaf, raw: RawStorage) -> bool:
    """Return whether ``leaf`` has each element of its storage once, in any order of its dimensions."""
    if leaf.offset or len(leaf.shape) >= MAX_RANK:
        return False
    if math.prod(leaf.shape) * DTYPES[leaf.dtype].itemsize != raw.length:
        return False
    step = 1
    for stride, dimension in sorted(zip(leaf.strides, leaf.shape, strict=True)):
        if dimension > 1:
            if stride != step:
                return False
            step *= dimension
    return True


def _physical(leaf: _Leaf) -> tuple[int, ...]:
    """Return the shape of ``leaf`` with its dimensions in memory order."""
    if leaf.strides == contiguous(leaf.shape) or math.prod(leaf.shape) < 2:
        return leaf.shape
    order = sorted(range(len(leaf.shape)), key=lambda axis: (-leaf.strides[axis], axis))
    return tuple(leaf.shape[axis] for axis in order)


def _views(tensor: Tensor, leaves: list[_Leaf]) -> Iterator[View]:
    for leaf in leaves:
        same = (leaf.name, leaf.dtype, leaf.shape) == (tensor.name, tensor.dtype, tensor.shape)
        plain = leaf.strides == contiguous(leaf.shape) and not leaf.offset
        as_stored = leaf.is_plain or leaf.is_scaled
        if not (same and plain and as_stored) and _fits(leaf, tensor.length):
            place = leaf.shape, leaf.strides, leaf.offset
            yield View(leaf.name, tensor.name, leaf.dtype, *place, is_plain=as_stored)


def _fits(leaf: _Leaf, length: int) -> bool:
    """Return whether all elements of ``leaf`` are inside its storage; torch has no check: pytorch#184652."""
    if 0 in leaf.shape:
        return True
    last = leaf.offset + sum(
        stride * (dimension - 1) for stride, dimension in zip(leaf.strides, leaf.shape, strict=True)
    )
    return (last + 1) * DTYPES[leaf.dtype].itemsize <= length


def _leaf(value: object) -> _Leaf | None:
    """Return the tensor that the call ``value`` would rebuild, or None."""
    for _ in range(4):
        if (
            not isinstance(value, Call)
            or not isinstance(value.function, Global)
            or not isinstance(value.args, tuple)
        ):
            return None
        function, args = value.function, value.args
        if function.module == "torch._utils" and function.name in _REBUILD_PARAMETER and args:
            value = args[0]
        elif function == Global("torch._tensor", "_rebuild_from_type_v2") and len(args) >= 3:
            value = Call(args[0], args[2])
        elif function.module == "torch._utils" and function.name in _REBUILD:
            return _rebuilt(function.name, args)
        else:
            return None
    return None


def _rebuilt(function: str, args: tuple[object, ...]) -> _Leaf | None:
    if len(args) < 4 or not isinstance(args[0], Persistent):
        return None
    pid = args[0].pid
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[2], str):
        return None
    offset, shape, strides = args[1], _ints(args[2]), _ints(args[3])
    if not isinstance(offset, int) or not 0 <= offset <= MAX_SIZE or shape is None or strides is None:
        return None
    if len(shape) != len(strides) or math.prod(max(d, 1) for d in shape) > MAX_SIZE:
        return None
    kind = args[6] if function == "_rebuild_tensor_v3" and len(args) > 6 else None
    dtype, is_scaled = _dtype(pid[1], kind), function == "_rebuild_qtensor"
    return _Leaf("", pid[2], dtype, offset, shape, strides, _is_plain(function, args), is_scaled)


def _is_plain(function: str, args: tuple[object, ...]) -> bool:
    """Return whether nothing is done to the elements, as ``{"conj": True}`` in the metadata asks for."""
    more = args[7:] if function == "_rebuild_tensor_v3" else args[6:]
    asks_for_nothing = all(value is None or (isinstance(value, Dict) and not value.pairs) for value in more)
    return function == "_rebuild_tensor" or (function != "_rebuild_qtensor" and asks_for_nothing)


def _ints(value: object) -> tuple[int, ...] | None:
    if isinstance(value, Call) and value.function == Global("torch", "Size"):
        value = value.args[0] if isinstance(value.args, tuple) and len(value.args) == 1 else None
    if not isinstance(value, (tuple, list)) or len(value) > MAX_RANK:
        return None
    if not all(isinstance(item, int) and 0 <= item <= MAX_SIZE for item in value):
        return None
    return tuple(int(item) for item in value)


def _dtype(storage: object, kind: object) -> str:
    if isinstance(kind, Global):
        return _DTYPES.get(kind.name, "bytes") if kind.module == "torch" else "bytes"
    if not isinstance(storage, Global) or storage.module not in _STORAGE_MODULES:
        return "bytes"
    return _STORAGES.get(storage.name, "bytes")
