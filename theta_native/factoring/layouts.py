"""The layouts of words that kernels read as float32, without branches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from theta_native.floats import FloatLayout


class Floats(NamedTuple):
    """The way to read words as float32: their bits, moved, times a power of two.

    Attributes:
        low: all bits without the sign.
        top: the sign.
        exponent: the bits of the exponent, all of which are set in what is not finite.
        shift: the number by which ``low`` is multiplied to be at its place in a float32.
        lift: that number for ``top``.
        scale: the power of two.
        smallest: the smallest normal number.
        unit: half of a unit in the last place of 1.
    """

    low: np.uint32
    top: np.uint32
    exponent: np.uint32
    shift: np.uint32
    lift: np.uint32
    scale: np.float32
    smallest: np.float32
    unit: np.float32

    @classmethod
    def of(cls, layout: FloatLayout) -> Floats:
        """Return how floats with an infinity, of at most 32 bits and 8 bits of exponent, are read."""
        top, bias = 1 << (layout.exponent + layout.mantissa), (1 << (layout.exponent - 1)) - 1
        return cls(
            np.uint32(top - 1),
            np.uint32(top),
            np.uint32(((1 << layout.exponent) - 1) << layout.mantissa),
            np.uint32(1 << (23 - layout.mantissa)),
            np.uint32((1 << 31) // top),
            np.float32(2.0 ** (127 - bias)),
            np.float32(2.0 ** (1 - bias)),
            np.float32(2.0 ** -(layout.mantissa + 1)),
        )
