"""Between stored words and the type that is computed in, and sums in float64.

float32 holds every value of the types below it, so that widening is exact; narrowing rounds once,
to nearest, ties to even.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from theta._kernels import floats, mixing
from theta._numpy import np
from theta.dtypes import numpy_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


_WORTH_A_KERNEL: Final = 1 << 16
"""Elements of a full block, for which numba may be started."""


def plain(dtype: str) -> np.dtype[Any]:
    """The numpy type of the elements: a complex number is two floats."""
    return numpy_dtype("f32" if dtype == "c64" else dtype)


def widen(words: Array, dtype: str) -> Array:
    """The values of words, in float32, or float64 for f64."""
    if dtype == "bf16":
        if words.size >= _WORTH_A_KERNEL:
            return floats.widen_bfloats(words)
        return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
    kind = plain(dtype)
    values: Array = words.view(kind)
    return values if kind.itemsize >= 4 else values.astype(np.float32)


def narrow(values: Array, dtype: str) -> Array:
    """``values`` rounded to words of ``dtype``."""
    kind = plain(dtype)
    if dtype == "bf16" and values.dtype == np.float32:
        return _bfloats(values)
    with np.errstate(all="ignore"):
        words: Array = np.ascontiguousarray(values.astype(kind)).view(f"<u{kind.itemsize}")
    return words


def _bfloats(values: Array) -> Array:
    """Half of the last place is added to the bits, ties to even; NaNs stay NaNs."""
    if values.size >= _WORTH_A_KERNEL:
        return floats.narrow_to_bfloats(np.ascontiguousarray(values))
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    out: Array = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        out[nan] = (bits[nan] >> np.uint32(16)).astype(np.uint16) | np.uint16(0x40)
    return out


def keep_equal(words: Array, inputs: Sequence[Array]) -> None:
    """Overwrite ``words`` where those of ``inputs`` are all equal, by these."""
    first, other = inputs[0], inputs[-1]
    if len(inputs) > 2:
        apart = first ^ other
        for middle in inputs[1:-1]:
            apart |= first ^ middle
        other = first ^ apart
    if words.size >= _WORTH_A_KERNEL:
        mixing.keep_equal(words, first, other)
    else:
        np.copyto(words, first, where=first == other)


_EXPONENTS: Final = {"bf16": 0x7F80, "f16": 0x7C00}
"""The bits of the exponent, which are all set in infinities and NaNs."""


def finite(words: Array, dtype: str) -> Array:
    """Which words are finite numbers."""
    if dtype in _EXPONENTS:
        ones = words.dtype.type(_EXPONENTS[dtype])
        fine: Array = (words & ones) != ones
        return fine
    found: Array = np.isfinite(widen(words, dtype))
    return found


def dot(one: Array, other: Array) -> float:
    """The sum of products in float64, pairwise: not by BLAS, whose order depends on its threads."""
    product = one.astype(np.float64)
    product *= other
    return float(product.sum())


def total(values: Array) -> float:
    """The sum in float64."""
    return float(values.sum(dtype=np.float64))


def norm(square: float) -> float:
    """The root of a sum of squares."""
    return math.sqrt(square) if square >= 0 else square
