"""Conversion between stored words and values, and sums in float64.

float32 represents every value of the smaller dtypes, so widening is exact.  Narrowing rounds once, to
nearest, ties to even.
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
"""Number of elements in a full block, which is worth starting numba."""


def plain(dtype: str) -> np.dtype[Any]:
    """Return the numpy dtype of the elements; a complex number is two floats."""
    return numpy_dtype("f32" if dtype == "c64" else dtype)


def widen(words: Array, dtype: str) -> Array:
    """Return the values of ``words`` as float32, or float64 for f64."""
    if dtype == "bf16":
        if words.size >= _WORTH_A_KERNEL:
            return floats.widen_bfloats(words)
        return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
    kind = plain(dtype)
    values: Array = words.view(kind)
    return values if kind.itemsize >= 4 else values.astype(np.float32)


def narrow(values: Array, dtype: str) -> Array:
    """Round ``values`` to words of ``dtype``."""
    kind = plain(dtype)
    if dtype == "bf16" and values.dtype == np.float32:
        return _bfloats(values)
    with np.errstate(all="ignore"):
        words: Array = np.ascontiguousarray(values.astype(kind)).view(f"<u{kind.itemsize}")
    return words


def _bfloats(values: Array) -> Array:
    """Round float32 values to bf16 words, ties to even; NaNs stay NaNs."""
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
    """Overwrite the ``words`` at which all ``inputs`` are equal by those of the inputs."""
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


def two_combined(
    inputs: Sequence[Array], factors: Sequence[float], dtype: str, *, keep_equal: bool
) -> Array | None:
    """Return the words of the sum of two ``inputs`` times ``factors``, in one pass over large ones of bf16.

    With ``keep_equal`` words that are equal stay so.  Return None when there is no such pass, or not all
    numbers are finite.
    """
    if not _are_two_large(inputs, dtype):
        return None
    return mixing.combined(inputs[0], inputs[1], (factors[0], factors[1]), keep_equal=keep_equal)


def two_multiplied(inputs: Sequence[Array], dtype: str) -> list[float] | None:
    """Return the dot products of two large ``inputs`` of bf16 by pairs (0, 0), (0, 1) and (1, 1), or None."""
    return mixing.products(inputs[0], inputs[1]) if _are_two_large(inputs, dtype) else None


def gaps(words: Array, base: Array, dtype: str) -> Array | None:
    """Return the bits of the absolute differences of ``words`` and ``base``, large ones of bf16, or None."""
    return mixing.gaps(words, base) if dtype == "bf16" and words.size >= _WORTH_A_KERNEL else None


def _are_two_large(inputs: Sequence[Array], dtype: str) -> bool:
    return dtype == "bf16" and len(inputs) == 2 and inputs[0].size >= _WORTH_A_KERNEL


_EXPONENTS: Final = {"bf16": 0x7F80, "f16": 0x7C00}
"""The mask of the exponent, whose bits are all set in infinities and NaNs."""


def finite(words: Array, dtype: str) -> Array:
    """Return the mask of the words that are finite numbers."""
    if dtype in _EXPONENTS:
        ones = words.dtype.type(_EXPONENTS[dtype])
        fine: Array = (words & ones) != ones
        return fine
    found: Array = np.isfinite(widen(words, dtype))
    return found


def dot(one: Array, other: Array) -> float:
    """Return the dot product in float64, not by BLAS, whose order of sums depends on its threads."""
    product = one.astype(np.float64)
    product *= other
    return float(product.sum())


def total(values: Array) -> float:
    """Return the sum in float64."""
    return float(values.sum(dtype=np.float64))


def norm(square: float) -> float:
    """Return the square root of a sum of squares; NaN stays NaN."""
    return math.sqrt(square) if square >= 0 else square
