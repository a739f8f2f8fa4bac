"""Arithmetic on words as values, the same on every machine: what predictions are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._kernels import floats
from theta._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta_native.floats import FloatLayout

    Words = NDArray[Any]

_LAYOUTS: Final = {
    "f16": (5, 10, False),
    "bf16": (8, 7, False),
    "f32": (8, 23, False),
    "f64": (11, 52, False),
    "f8_e4m3": (4, 3, True),
    "f8_e5m2": (5, 2, False),
}


def has_values(dtype: str) -> bool:
    """Return whether words of ``dtype`` are numbers that this module can read and round."""
    return dtype in _LAYOUTS


def mantissa_bits(dtype: str) -> int:
    """Return the stored bits of the mantissa of a dtype that :func:`has_values`."""
    return _LAYOUTS[dtype][1]


def layout(dtype: str) -> FloatLayout:
    """Return the layout of words of a dtype that :func:`has_values`."""
    return floats.FloatLayout(*_LAYOUTS[dtype])


def to_values(words: Words, dtype: str) -> NDArray[np.float64]:
    """Return the values of words, exactly; NaNs lose their payload."""
    return _widen_bfloats(words) if dtype == "bf16" else floats.widen(words, layout(dtype))


def _widen_bfloats(words: Words) -> NDArray[np.float64]:
    """Return the values of bf16 words, which are the upper halves of f32 words."""
    with np.errstate(invalid="ignore"):  # machines differ in what they tell of a signalling NaN
        values = (words.astype("<u4") << np.uint32(16)).view("<f4").astype(np.float64)
    nan = np.isnan(values)
    if nan.any():
        values[nan] = np.nan
    small = (words & np.uint16(0x7F80)) == 0
    if small.any():  # a library may have told this thread to take subnormal numbers for 0
        whole = np.ldexp((words[small] & np.uint16(0x7F)).astype(np.float64), -133)
        values[small] = np.where(words[small] >> np.uint16(15), -whole, whole)
    return values


def to_words(values: NDArray[np.float64], dtype: str) -> Words:
    """Round values to nearest, ties to even; every NaN becomes the same one."""
    return floats.narrow(values, layout(dtype))


def boundary_classes(exact: NDArray[np.float64], predicted: Words, dtype: str) -> NDArray[np.uint8]:
    """Return the positions of exact values in the rounding intervals of ``predicted`` (0 to 15)."""
    return floats.boundary_classes(exact, to_values(predicted, dtype), layout(dtype))


def sums(words: Words, added: NDArray[np.float64], dtype: str) -> tuple[Words, NDArray[np.uint8]]:
    """Return the words next to the values of f16, bf16 or f32 ``words`` plus ``added``, and their classes.

    These are the words of :func:`to_words` and the classes of :func:`boundary_classes`, in one pass.
    """
    return kernels.sums.sums(words, layout(dtype), added)
