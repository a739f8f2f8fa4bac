"""The dtypes of theta, by their names in manifests.

The names are those of the safetensors format in lower case, plus ``bytes`` for other data.  The table has no
numpy dtypes, so that commands that only compare names start fast; :func:`numpy_dtype` imports them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from theta._numpy import np

Kind = Literal["float", "int", "uint", "bool", "complex", "packed", "bytes"]


@dataclass(frozen=True)
class DType:
    """A dtype: its name, its width in bits, its kind, and its name in numpy or ml_dtypes."""

    name: str
    bits: int
    kind: Kind
    numpy_name: str | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of one storage unit, which is one byte for sub-byte dtypes."""
        return max(1, self.bits // 8)

    def nbytes(self, shape: Sequence[int]) -> int:
        """Return the bytes of a tensor of ``shape``; raises ``ValueError`` for an incomplete last byte."""
        total = math.prod(shape) * self.bits
        if total % 8:
            raise ValueError(f"{math.prod(shape)} elements of {self.bits} bits do not fill whole bytes")
        return total // 8


_TABLE: Final = (
    DType("bool", 8, "bool", "bool"),
    DType("u8", 8, "uint", "uint8"),
    DType("i8", 8, "int", "int8"),
    DType("u16", 16, "uint", "uint16"),
    DType("i16", 16, "int", "int16"),
    DType("u32", 32, "uint", "uint32"),
    DType("i32", 32, "int", "int32"),
    DType("u64", 64, "uint", "uint64"),
    DType("i64", 64, "int", "int64"),
    DType("f16", 16, "float", "float16"),
    DType("bf16", 16, "float", "bfloat16"),
    DType("f32", 32, "float", "float32"),
    DType("f64", 64, "float", "float64"),
    DType("c64", 64, "complex", "complex64"),
    DType("f8_e4m3", 8, "float", "float8_e4m3fn"),
    DType("f8_e5m2", 8, "float", "float8_e5m2"),
    DType("f8_e8m0", 8, "float", "float8_e8m0fnu"),
    DType("f8_e4m3fnuz", 8, "float", "float8_e4m3fnuz"),
    DType("f8_e5m2fnuz", 8, "float", "float8_e5m2fnuz"),
    DType("f4", 4, "packed"),
    DType("f6_e2m3", 6, "packed"),
    DType("f6_e3m2", 6, "packed"),
    DType("bytes", 8, "bytes", "uint8"),
)

DTYPES: Final[dict[str, DType]] = {entry.name: entry for entry in _TABLE}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype ``name`` of numpy, or of ml_dtypes if numpy does not have it.

    Raises ``KeyError`` for an unknown name and ``TypeError`` for packed sub-byte dtypes.
    """
    numpy_name = DTYPES[name].numpy_name
    if numpy_name is None:
        raise TypeError(f"{name} is packed below one byte and has no numpy type")
    if numpy_name.startswith(("bfloat", "float8")):
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, numpy_name))
        return found
    return np.dtype(numpy_name)


def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype of numpy or ml_dtypes, whatever its byte order.

    Raises ``KeyError`` for a dtype that no checkpoint has.
    """
    return _BY_NUMPY[dtype.name]


_BY_NUMPY: Final[dict[str, str]] = {
    entry.numpy_name: entry.name for entry in _TABLE if entry.numpy_name and entry.kind != "bytes"
}
