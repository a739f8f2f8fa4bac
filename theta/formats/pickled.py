"""Pickles with numpy arrays in them: scikit-learn's models, and joblib's files (uncompressed).

The arrays whose bytes lie in one piece are tensors, named by the way that leads to them through the
objects; all else is skeleton.  Pickles of protocols 0 to 2 hold arrays as text and are opaque.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from theta.errors import FormatError
from theta.formats import torch_legacy
from theta.formats.layout import MAX_RANK, MAX_SIZE, Layout, Source, Tensor, View
from theta.formats.npy import array_of
from theta.formats.object_walk import walk
from theta.formats.pickle_vm import Blob, Call, Dict, Global, Machine

NAME: Final = "pickle"
_PROTOCOLS: Final = (b"\x80\x03", b"\x80\x04", b"\x80\x05")
_WRAPPER: Final = Global("joblib.numpy_pickle", "NumpyArrayWrapper")
_MULTIARRAY: Final = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC: Final = ("numpy.core.numeric", "numpy._core.numeric")


@dataclass(frozen=True, slots=True)
class _Found:
    """The bytes of an array, and what they mean."""

    offset: int
    length: int
    kind: str
    shape: tuple[int, ...]
    fortran: bool


def detect(source: Source) -> bool:
    """Whether the file begins as a pickle of protocol 3 or later does, and is not torch's."""
    return source.size > 16 and source.read(0, 2) in _PROTOCOLS and not torch_legacy.detect(source)


def scan(source: Source) -> Layout:
    """The arrays in file order; ``FormatError`` for several pickles in a row and where there is none."""
    machine = _JoblibMachine(source, 0, source.size)
    root = machine.run()
    if machine.position != source.size:
        raise FormatError("pickle: bytes behind its end")
    tensors: dict[int, Tensor] = {}
    views: list[View] = []
    names: set[str] = set()
    for path, found in walk(root, _leaf, source.size):
        name = path or "array"
        if found.offset in tensors or name in names:
            continue
        array = array_of(found.kind, found.shape, found.fortran, found.offset)
        if array.length != found.length:
            continue
        names.add(name)
        tensors[found.offset] = array.tensor(name)
        views.extend(array.views(name))
    if not tensors:
        raise FormatError("pickle: no arrays that lie in one piece")
    return Layout(NAME, source.size, tuple(tensors[offset] for offset in sorted(tensors)), views=tuple(views))


class _JoblibMachine(Machine):
    """joblib writes the bytes of an array into the pickle, behind the opcode that completes its wrapper."""

    def _build(self) -> None:
        super()._build()
        wrapper = self._top()
        if (
            not isinstance(wrapper, Call)
            or wrapper.function != _WRAPPER
            or not isinstance(wrapper.state, Dict)
        ):
            return
        fields = {key: value for key, value in wrapper.state.pairs if isinstance(key, str)}
        kind, shape = _kind(fields.get("dtype")), _shape(fields.get("shape"))
        if kind is None or shape is None:
            raise FormatError("pickle: an array of joblib that is not plain")
        # Since joblib 1.3 a byte gives the length of the padding that follows it.
        if fields.get("numpy_array_alignment_bytes") is not None:
            self.skip(self.number(1))
        array = array_of(kind, shape, fields.get("order") == "F", self.position)
        wrapper.state = _Found(self.skip(array.length), array.length, kind, shape, array.fortran)


def _leaf(value: object) -> _Found | None:
    if not isinstance(value, Call):
        return None
    if value.function == _WRAPPER:
        return value.state if isinstance(value.state, _Found) else None
    if not isinstance(value.function, Global):
        return None
    if value.function.module in _MULTIARRAY and value.function.name == "_reconstruct":
        return _reconstructed(value.state)
    if value.function.module in _NUMERIC and value.function.name == "_frombuffer":
        return _from_buffer(value.args)
    return None


def _reconstructed(state: object) -> _Found | None:
    """``ndarray.__setstate__``: version, shape, dtype, whether in Fortran's order, bytes."""
    if not isinstance(state, tuple) or len(state) != 5:
        return None
    return _found(state[4], state[2], state[1], state[3] is True)


def _from_buffer(args: object) -> _Found | None:
    """``_frombuffer(bytes, dtype, shape, order)``; the bytes may be wrapped in a bytearray."""
    if not isinstance(args, tuple) or len(args) != 4:
        return None
    return _found(args[0], args[1], args[2], args[3] == "F")


def _found(blob: object, dtype: object, shape: object, fortran: bool) -> _Found | None:
    kind, dimensions = _kind(dtype), _shape(shape)
    if not isinstance(blob, Blob) or kind is None or dimensions is None:
        return None
    return _Found(blob.offset, blob.length, kind, dimensions, fortran)


def _kind(dtype: object) -> str | None:
    """``<f8`` and the like of a pickled ``numpy.dtype``; None for objects and structures."""
    if not isinstance(dtype, Call) or dtype.function != Global("numpy", "dtype"):
        return None
    if not isinstance(dtype.args, tuple) or not dtype.args or not isinstance(dtype.state, tuple):
        return None
    code = dtype.args[0]
    if not isinstance(code, str) or len(dtype.state) < 5 or dtype.state[2:5] != (None, None, None):
        return None
    order = dtype.state[1]
    return f"{order}{code}" if order in ("<", ">", "|") else None


def _shape(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, tuple) or len(value) >= MAX_RANK:
        return None
    if not all(isinstance(item, int) and 0 <= item <= MAX_SIZE for item in value):
        return None
    return tuple(int(item) for item in value)
