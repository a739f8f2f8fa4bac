"""The arrays of a program as places that values are read into, and new arrays of its framework."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

from theta import dtypes
from theta._numpy import np
from theta.errors import FormatError, NoSuchTensorError, UsageError, did_you_mean
from theta.formats.layout import clip
from theta.lazy import imported

if TYPE_CHECKING:
    from numpy.typing import NDArray

Framework = Literal["numpy", "torch"]
_INTEGERS: Final = {1: "uint8", 2: "int16"}
"""Bytes -> the type of torch under which numpy sees elements that it has no type for."""


class ReadableTensor(Protocol):
    """A tensor that can be read into an array."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type in numpy."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis."""
        ...

    def into(self, out: NDArray[Any], /) -> None:
        """Read it into an array of this type and shape."""
        ...


@dataclass(frozen=True)
class Destination:
    """An array to fill: a numpy array of its memory, or of a copy that ``done`` brings to its device."""

    array: NDArray[Any]
    done: Callable[[], object] = lambda: None


def check(framework: str) -> None:
    """Raise :class:`UsageError` for a framework that has no arrays here."""
    if framework not in get_args(Framework):
        raise UsageError(f"there are no arrays of {framework!r} here", hint="framework='numpy' or 'torch'")


def planned(
    out: Mapping[str, Any], tensors: Mapping[str, ReadableTensor], names: str, label: str
) -> list[tuple[ReadableTensor, Destination]]:
    """Return each array of ``out`` whose name matches ``names``, with its tensor; in file order.

    Raises:
        NoSuchTensorError: there is no tensor of the name of an array, or no array that matches.
        UsageError: a value of ``out`` is no array that can be written to, or its elements share memory.
        FormatError: dtype or shape differ.
    """
    if not isinstance(out, Mapping):
        kind = type(out).__qualname__
        raise UsageError(f"out is of type {kind}, not arrays by their names", hint="out=model.state_dict()")
    found = {}
    for name, value in flat(out):
        if not fnmatchcase(name, names):
            continue
        if name not in tensors:
            near = did_you_mean(name, tensors)
            raise NoSuchTensorError(
                f"{label} has no tensor {clip(name)}", hint=near or "repo[NAME] names them"
            )
        if name in found:
            raise UsageError(f"out names {clip(name)} twice")
        found[name] = _checked(name, tensors[name], destination(name, value))
    if not found:
        raise NoSuchTensorError(f"no array of out is named {names}")
    return [(tensors[name], found[name]) for name in tensors if name in found]


def flat(out: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the arrays of nested mappings with their names, joined by dots."""
    for key, value in out.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _checked(name: str, tensor: ReadableTensor, destination: Destination) -> Destination:
    there = destination.array
    if (there.dtype, there.shape) != (tensor.dtype, tensor.shape):
        wanted, found = f"{tensor.dtype} {list(tensor.shape)}", f"{there.dtype} {list(there.shape)}"
        raise FormatError(f"{clip(name)} is {wanted}, the array is {found}")
    refuse_overlaps(name, there)
    return destination


def refuse_overlaps(name: str, array: NDArray[Any]) -> None:
    """Raise :class:`UsageError` for an array that cannot hold all values, as a broadcast one."""
    if _overlaps(array):
        raise UsageError(f"{clip(name)} has elements that share memory", hint="copy it first")


def _overlaps(array: NDArray[Any]) -> bool:
    """Return whether two elements may share memory; an axis's steps must pass all that is within one."""
    width = array.itemsize
    axes = zip(map(abs, array.strides), array.shape, strict=True)
    for stride, length in sorted(axis for axis in axes if axis[1] > 1):
        if stride < width:
            return array.size > 0
        width += stride * (length - 1)
    return False


def destination(name: str, value: Any) -> Destination:
    """Return the place that an array of numpy, torch or another library is; raises :class:`UsageError`."""
    torch = imported("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_torch(torch, value)
    array = value if isinstance(value, np.ndarray) else _by_protocol(name, value)
    if not array.flags.writeable:
        raise UsageError(f"{clip(name)} is an array that cannot be written to", hint=_way_on(value))
    return Destination(array)


def _way_on(value: Any) -> str:
    """Return what to do about an array that cannot be written to.

    Before 2.3 numpy writes to nothing that it has by DLPack, whose first version does not tell what is fixed.
    """
    is_seen = not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__")
    if is_seen and np.lib.NumpyVersion(np.__version__) < "2.3.0":
        return "numpy 2.3 or newer may write to it"
    return "copy it first"


def _by_protocol(name: str, value: Any) -> NDArray[Any]:
    """Return a numpy array of the memory of another library's array."""
    if hasattr(value, "__dlpack__"):
        with contextlib.suppress(TypeError, ValueError, RuntimeError, BufferError):
            found: NDArray[Any] = np.from_dlpack(value)
            return found
    with contextlib.suppress(TypeError, ValueError):
        return np.asarray(memoryview(value))
    raise UsageError(f"{clip(name)} is of type {type(value).__qualname__}, not an array to read into")


def _of_torch(torch: Any, value: Any) -> Destination:
    there = value.detach()
    if there.device.type == "cpu":
        return Destination(_seen_by_numpy(torch, there))
    near = torch.empty(there.shape, dtype=there.dtype)
    return Destination(_seen_by_numpy(torch, near), lambda: there.copy_(near))


def _seen_by_numpy(torch: Any, tensor: Any) -> NDArray[Any]:
    """Return a numpy array of the memory of a tensor, whatever its strides."""
    name = str(tensor.dtype).removeprefix("torch.")
    if not _is_foreign(name):
        found: NDArray[Any] = tensor.numpy()
        return found
    seen: NDArray[Any] = tensor.view(getattr(torch, _INTEGERS[tensor.element_size()])).numpy()
    return seen.view(_foreign(name))


def _is_foreign(name: str) -> bool:
    """Return whether numpy has a dtype only by ml_dtypes."""
    return name.startswith(("bfloat", "float8"))


def _foreign(name: str) -> np.dtype[Any]:
    return dtypes.numpy_dtype(next(e.name for e in dtypes.DTYPES.values() if e.numpy_name == name))


def as_torch(array: NDArray[Any]) -> Any:
    """Return a tensor of torch with the memory of ``array``; the program has imported torch.

    Raises :class:`UsageError` if it has not.
    """
    torch: Any = imported("torch")
    if torch is None:
        raise UsageError("torch is not imported", hint="import torch, then ask for its tensors")
    name = array.dtype.name
    if not _is_foreign(name):
        return torch.from_numpy(array)
    seen = array.view(_INTEGERS[array.dtype.itemsize])
    return torch.from_numpy(seen).view(getattr(torch, name))
