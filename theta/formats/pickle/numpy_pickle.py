"""numpy arrays in pickles, as numpy and joblib pickle them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from theta.errors import FormatError
from theta.formats.layout import MAX_RANK, MAX_SIZE
from theta.formats.npy import array_of
from theta.formats.pickle.pickle_vm import Call, Dict, Global, Machine, RawBytes

MAX_NESTING: Final = 8
_WRAPPER: Final = Global("joblib.numpy_pickle", "NumpyArrayWrapper")
_MULTIARRAY: Final = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC: Final = ("numpy.core.numeric", "numpy._core.numeric")
_HAS_OBJECT: Final = 1


@dataclass(frozen=True, slots=True)
class PickledArray:
    """Location and type of an array in the file; ``kind`` is numpy's type, such as ``<f8``."""

    offset: int
    length: int
    kind: str
    shape: tuple[int, ...]
    fortran: bool


class JoblibMachine(Machine):
    """Reads joblib's pickles, where the bytes of an array follow the opcode that completes its wrapper.

    An array of objects is a nested pickle, read by a machine of the same class.
    """

    depth = 0

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
        if _is_object(fields.get("dtype")):
            self._nested()
            return
        kind, shape = _kind(fields.get("dtype")), _shape(fields.get("shape"))
        if kind is None or shape is None:
            raise FormatError("pickle: an array of joblib that is not plain")
        # Since joblib 1.3 there is padding after a byte with its length.
        if fields.get("numpy_array_alignment_bytes") is not None:
            self.skip(self.number(1))
        fortran = fields.get("order") == "F"
        length = array_of(kind, shape, fortran, 0).length
        wrapper.state = PickledArray(self.skip(length), length, kind, shape, fortran)

    def _nested(self) -> None:
        if self.depth >= MAX_NESTING:
            raise FormatError("pickle: pickles nested too deeply")
        inner = type(self)(self._source, self.position, self._end)
        inner.depth = self.depth + 1
        inner._budget = self._budget
        try:
            inner.run()
        finally:
            self.globals.update(inner.globals)
        self._budget = inner._budget
        self.skip(inner.position - self.position)


def pickled_array(value: object) -> PickledArray | None:
    """Return the array that the call ``value`` would make; None unless its bytes are contiguous."""
    if not isinstance(value, Call):
        return None
    if value.function == _WRAPPER:
        return value.state if isinstance(value.state, PickledArray) else None
    if not isinstance(value.function, Global):
        return None
    if value.function.module in _MULTIARRAY and value.function.name == "_reconstruct":
        return _reconstructed(value.state)
    if value.function.module in _NUMERIC and value.function.name == "_frombuffer":
        return _from_buffer(value.args)
    return None


def _reconstructed(state: object) -> PickledArray | None:
    """Read the state of ``ndarray.__setstate__``: version, shape, dtype, Fortran order, bytes."""
    if not isinstance(state, tuple) or len(state) != 5:
        return None
    return _found(state[4], state[2], state[1], state[3] is True)


def _from_buffer(args: object) -> PickledArray | None:
    """Read the arguments of ``_frombuffer(bytes, dtype, shape, order)``."""
    if not isinstance(args, tuple) or len(args) != 4:
        return None
    return _found(args[0], args[1], args[2], args[3] == "F")


def _found(blob: object, dtype: object, shape: object, fortran: bool) -> PickledArray | None:
    kind, dimensions = _kind(dtype), _shape(shape)
    if not isinstance(blob, RawBytes) or kind is None or dimensions is None:
        return None
    return PickledArray(blob.offset, blob.length, kind, dimensions, fortran)


def _is_object(dtype: object) -> bool:
    return isinstance(dtype, Call) and isinstance(dtype.args, tuple) and dtype.args[:1] in (("O8",), ("O",))


def _kind(dtype: object) -> str | None:
    """Return numpy's type of a pickled ``numpy.dtype``: ``<f8``, ``|V64`` for a structure, None for objects.

    Its state is version, byte order, subtype, names, fields, size, alignment, flags.
    """
    if not isinstance(dtype, Call) or dtype.function != Global("numpy", "dtype"):
        return None
    if not isinstance(dtype.args, tuple) or not dtype.args or not isinstance(dtype.state, tuple):
        return None
    code, state = dtype.args[0], dtype.state
    if not isinstance(code, str) or len(state) < 8 or state[2] is not None:
        return None
    if not isinstance(state[7], int) or state[7] & _HAS_OBJECT or (state[3] is not None and code[:1] != "V"):
        return None
    return f"{state[1]}{code}" if state[1] in ("<", ">", "|") else None


def _shape(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, tuple) or len(value) >= MAX_RANK:
        return None
    if not all(isinstance(item, int) and 0 <= item <= MAX_SIZE for item in value):
        return None
    return tuple(int(item) for item in value)
