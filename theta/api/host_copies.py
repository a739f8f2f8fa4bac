"""Copies of a program's arrays in the memory of the host, as files that theta can store."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from theta import dtypes
from theta._numpy import np
from theta.api import held_files, host_memory
from theta.errors import FormatError, ThetaError, UsageError, concerning, in_short
from theta.formats import safetensors, writers
from theta.formats.layout import BytesSource, TensorSpec, clip
from theta.formats.plan import PlannedFile
from theta.formats.torch import torch_writer
from theta.lazy import imported
from theta.porcelain.stage.saved_tree import File, StoredFile
from theta.porcelain.tensors.converting import SUFFIXES

if TYPE_CHECKING:
    from numpy.typing import NDArray

Room: TypeAlias = "NDArray[np.uint8]"
"""Memory for the bytes of one array."""

_STORING: Final = 128 << 20
"""Bytes that storing takes beside the copy: about five times the tensors that its threads have in hand."""
_WORTH_A_PAUSE: Final = 64 << 20
"""Bytes of a copy from which on it is waited for memory."""
_LITTLE: Final = "<"
_ARRAYS: Final = ("__array__", "__array_interface__", "__dlpack__")
"""Attributes of arrays, which numbers and lists lack."""
_EXAMPLE: Final = "name files: {'model.safetensors': arrays}"
_NO_ARRAY: Final = (KeyError, TypeError, ValueError, StopIteration)
"""Errors of an array of a kind that no file has."""


@dataclass(frozen=True)
class _Array:
    """An array of the program: its place in a file, its bytes, and what copies it into memory.

    ``identity`` is equal for two names of the same elements.
    """

    spec: TensorSpec
    nbytes: int
    copy: Callable[[Room], object]
    identity: object


@dataclass(frozen=True)
class PlannedCopy:
    """A file to store, as soon as its arrays are copied."""

    arrays: Sequence[_Array]
    made: Callable[[Mapping[str, memoryview]], File]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays)

    def filled(self, rooms: Sequence[Room], before: Callable[[int], object] = lambda _: None) -> File:
        """Copy the arrays into ``rooms``, and return the file; to repeat it does no harm.

        ``before`` is called before each array with the bytes of this one and those that are copied.
        Raises :class:`ThetaError` when an array cannot be read, such as that of a device that failed.
        """
        ends = accumulate(array.nbytes for array in self.arrays)
        for array, room, end in zip(self.arrays, rooms, ends, strict=True):
            before(end)
            with _reading(array.spec.name):
                array.copy(room)
        values = zip(self.arrays, rooms, strict=True)
        return self.made({array.spec.name: room.data for array, room in values})


@dataclass(frozen=True)
class Shrinking:
    """Two copies of ``nbytes``, of which the one that is being stored makes room for what storing takes.

    The last part of the other one is copied when as much has been given back.
    """

    nbytes: int

    @property
    def _part(self) -> int:
        return min(self.nbytes // 8, _STORING) if self.nbytes >= _WORTH_A_PAUSE else 0

    def is_last(self, copied: int) -> bool:
        """Return whether the array up to byte ``copied`` is in the last part."""
        return copied > self.nbytes - self._part

    def is_due(self, files: Iterable[File]) -> bool:
        """Return whether ``files``, a copy that is being stored, have given back less than the last part."""
        return sum(file.forgotten for file in files if isinstance(file, PlannedFile)) < self._part


def allocated(plans: Mapping[str, PlannedCopy]) -> dict[str, list[Room]]:
    """Return path -> memory for its arrays, which takes none until they are copied; raises MemoryError."""
    found = host_memory.rooms(array.nbytes for plan in plans.values() for array in plan.arrays)
    return {path: list(islice(found, len(plan.arrays))) for path, plan in plans.items()}


def planned(files: Mapping[str, Any]) -> dict[str, PlannedCopy]:
    """Return path -> what copies the arrays of that file and returns what is to be stored.

    A mapping of arrays becomes the checkpoint that the suffix of its path asks for; bytes and text are the
    file itself, and a :class:`pathlib.Path` names it.  A torch file may be any object of plain values and
    arrays.  A file on disk is held open, not copied.

    Raises:
        UsageError: there is nothing to save, or a value that is neither.
        FormatError: the format cannot hold a value.
        NotFoundError: there is no such file on disk.
    """
    if not isinstance(files, Mapping):
        raise UsageError(f"what is to be saved is {_kind(files)}, not files by their paths", hint=_EXAMPLE)
    if not files:
        raise UsageError("there is nothing to save", hint=_EXAMPLE)
    for path in files:
        if not isinstance(path, str):
            raise UsageError(f"a file is named by text, not by {path!r}", hint=_EXAMPLE)
    return {path: _file(path, value) for path, value in files.items()}


def _as_it_is(file: File) -> PlannedCopy:
    return PlannedCopy((), lambda _: file)


def _file(path: str, value: Any) -> PlannedCopy:
    suffix = path[path.rfind(".") :].lower() if "." in path else ""
    if isinstance(value, StoredFile):
        return _as_it_is(value)
    if isinstance(value, os.PathLike):
        return _as_it_is(held_files.hold(Path(value)))
    if isinstance(value, str):
        value = _encoded(path, value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _as_it_is(held_files.stored_as(BytesSource(bytes(value))))
    name = SUFFIXES.get(suffix, "")
    if name == torch_writer.NAME:
        return _torch_file(path, value)
    if not isinstance(value, Mapping):
        raise UsageError(f"{path} is {_kind(value)}; a file is a mapping of arrays, bytes, text or a path")
    return _checkpoint(path, name, value)


def _encoded(path: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{path} is text that UTF-8 cannot hold", hint="save it as bytes") from error


def _torch_file(path: str, value: Any) -> PlannedCopy:
    """Plan the pickle of any object; an array that is in it twice, as tied weights are, is stored once."""
    arrays: list[_Array] = []
    keys: dict[object, int] = {}

    def stored(name: str, item: Any) -> tuple[int, TensorSpec]:
        array = _array(path, name, item, set(), "a torch file has plain values and arrays")
        key = keys.setdefault(array.identity, len(arrays))
        if key == len(arrays):
            arrays.append(array)
        return key, arrays[key].spec

    with concerning(path, FormatError):
        plan = torch_writer.plan_object(value, stored)
    return PlannedCopy(arrays, lambda values: PlannedFile(plan, values))


def _checkpoint(path: str, name: str, value: Mapping[str, Any]) -> PlannedCopy:
    if not name:
        raise UsageError(f"theta cannot write arrays as {path}", hint=f"it writes {', '.join(SUFFIXES)}")
    frameworks: set[str] = set()
    hint = f"{name} holds arrays only: save it in a .pt file, or as an array"
    arrays = [_array(path, key, array, frameworks, hint) for key, array in _flat(path, value)]
    specs = [array.spec for array in arrays]
    counts = Counter(spec.name for spec in specs)
    if twice := next((spec.name for spec in specs if counts[spec.name] > 1), None):
        hint = "the names of mappings in others are joined by dots"
        raise UsageError(f"{path}: two arrays are named {clip(twice)}", hint=hint)
    if bad := writers.cannot_hold(name, specs):
        raise FormatError(f"{path}: {name} cannot hold {clip(bad[0].name)} ({bad[0].dtype})")
    # Hugging Face's loaders require the entry.
    metadata = {"format": "pt" if "torch" in frameworks else "np"} if name == safetensors.NAME else None
    plan = writers.plan(name, specs, metadata)
    return PlannedCopy(arrays, lambda values: PlannedFile(plan, values))


def _flat(path: str, value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the arrays of nested mappings with their names, joined by dots."""
    for key, item in value.items():
        if not isinstance(key, (str, int)):
            raise UsageError(f"{path}: an array is named {key!r}, which is neither text nor a number")
        if isinstance(item, Mapping):
            yield from _flat(path, item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _array(path: str, name: str, value: Any, frameworks: set[str], hint: str) -> _Array:
    torch = imported("torch")
    try:
        with concerning(path), _reading(name):
            if torch is not None and isinstance(value, torch.Tensor):
                frameworks.add("torch")
                return _of_torch(torch, name, value)
            if any(hasattr(value, way) for way in _ARRAYS):
                return _of_numpy(name, value)
    except _NO_ARRAY as error:
        raise UsageError(f"{path}: {clip(name)} is {_kind(value)}, not an array to save") from error
    raise UsageError(f"{path}: {clip(name)} is {_kind(value)}, not an array to save", hint=hint)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn the errors of a library that reads one of its arrays into one of theta's."""
    try:
        yield
    except (ThetaError, MemoryError, *_NO_ARRAY):
        raise
    except Exception as error:  # each library has its own
        raise ThetaError(
            f"{clip(name)} could not be read: {in_short(error)}", hint="nothing of this save is stored"
        ) from error


def _of_numpy(name: str, value: Any) -> _Array:
    """Describe what numpy takes for an array; raises :class:`KeyError` for a dtype that no file has."""
    if np.ma.isMaskedArray(value):
        raise TypeError(value)
    there = value if isinstance(value, np.ndarray) else np.asarray(value)

    def copy(room: Room) -> None:
        np.copyto(room.view(there.dtype.newbyteorder(_LITTLE)).reshape(there.shape), there)

    place = there.__array_interface__["data"][0] if there.nbytes else object()
    identity = (place, there.dtype.str, dtypes.name_of(there.dtype), there.shape, there.strides)
    spec = TensorSpec(name, dtypes.name_of(there.dtype), there.shape)
    return _Array(spec, there.nbytes, copy, identity)


def _of_torch(torch: Any, name: str, value: Any) -> _Array:
    """Describe a tensor of torch, on any device; raises :class:`ValueError` for a sparse one."""
    if value.layout is not torch.strided:
        raise ValueError(value.layout)
    # A device that failed says so here, before a save that waits gives way to this one.
    if value.device.type != "cpu" and value.numel() and type(value) in (torch.Tensor, torch.nn.Parameter):
        value.detach()[(0,) * value.dim()].cpu()

    def copy(room: Room) -> None:
        torch.from_numpy(room).view(value.dtype).view(value.shape).copy_(value.detach())

    dtype = _named(str(value.dtype).removeprefix("torch."))
    place = value.data_ptr() if value.numel() else object()
    identity = (
        place,
        value.device,
        dtype,
        tuple(value.shape),
        value.stride(),
        value.is_conj(),
        value.is_neg(),
    )
    spec = TensorSpec(name, dtype, tuple(value.shape))
    return _Array(spec, value.numel() * value.element_size(), copy, identity)


def _named(dtype: str) -> str:
    """Return theta's name of a dtype that torch and numpy call alike."""
    return next(entry.name for entry in dtypes.DTYPES.values() if entry.numpy_name == dtype)


def _kind(value: Any) -> str:
    name = f"of type {type(value).__module__}.{type(value).__qualname__}"
    return f"{name} and dtype {value.dtype}" if isinstance(value, np.ndarray) else name
