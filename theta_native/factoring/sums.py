"""A product that is added to the values of words, rounded to words, and the classes of what was rounded.

The results are those of the steps one by one in :mod:`theta_native.floats`, on every machine.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theta_native import floats, kernel, unwritable
from theta_native.factoring.layouts import Floats
from theta_native.floats import FloatLayout

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint16 or uint32."""
Values = NDArray[np.float64]

_BLOCK: Final = 1024
_ONE, _SIGN = np.uint64(1), np.uint64(1 << 63)
_classes = floats._boundary_classes


@kernel
def _add(words: Words, layout: tuple[Any, ...], unit: float, product: Values, out: Values) -> bool:
    # Put the sums into `out`; return whether all words are finite.  Subnormal words are whole numbers of
    # `unit`: as float32 they would be subnormal too, which a library may have told this thread to take for 0.
    low, top, exponent, shift, lift, scale, _, _ = layout
    is_finite = True
    for i in range(out.size):
        x = np.uint32(words[i])
        unsigned, sign = np.uint32(x & low), np.uint32(np.uint32(x & top) * lift)
        normal = np.uint32(np.uint32(unsigned * shift) | sign).view(np.float32) * scale
        small = np.float64(np.int32(unsigned)) * unit
        is_small = np.uint32(x & exponent) == 0
        out[i] = product[i] + ((-small if sign else small) if is_small else np.float64(normal))
        is_finite &= np.uint32(x & exponent) != exponent
    return is_finite


@kernel
def _are_below(bits: NDArray[np.uint64], most: np.uint64) -> bool:
    found = True
    for i in range(bits.size):
        found &= (bits[i] & ~_SIGN) < most
    return found


@kernel
def _round(exact: Values, mantissa: int, bias: int, out: tuple[Words, Values]) -> None:
    # Round numbers that are not too large to nearest, ties to even: to words, and to the numbers of these.
    words, rounded = out
    bits = exact.view(np.uint64)
    shift, less = np.uint64(52 - mantissa), np.uint64(1023 - bias) << np.uint64(mantissa)
    half, lift = (_ONE << (shift - _ONE)) - _ONE, np.uint64(8 * words.itemsize - 1)
    least = np.uint64(1024 - bias) << np.uint64(52)
    # A number with the units of subnormal words: what is added to it is rounded to these.
    units = np.uint64(1024 + 52 - bias - mantissa) << np.uint64(52)
    grid = np.uint64(units).view(np.float64)
    for i in range(bits.size):
        unsigned = bits[i] & ~_SIGN
        high = (unsigned + half + ((unsigned >> shift) & _ONE)) >> shift
        moved = abs(exact[i]) + grid
        is_small = unsigned < least
        word = np.float64(moved).view(np.uint64) - units if is_small else high - less
        rounded[i] = moved - grid if is_small else np.uint64(high << shift).view(np.float64)
        words[i] = word | ((bits[i] >> np.uint64(63)) << lift)


@kernel
def _sums(
    words: Words,
    layout: tuple[Any, ...],
    kind: tuple[int, int],
    product: Values,
    room: tuple[Values, Values, tuple[Values, NDArray[np.int64]]],
    out: tuple[Words, NDArray[np.uint8]],
    start: int,
) -> int:
    # Take the blocks from `start` on; return the end, or where a block has other than ordinary numbers.
    bias, m_bits = kind
    most = np.uint64(1023 + bias) << np.uint64(52)
    unit = np.uint64(np.uint64(1024 - bias - m_bits) << np.uint64(52)).view(np.float64)
    for first in range(start, words.size, _BLOCK):
        last = min(first + _BLOCK, words.size)
        w, p, o, c = words[first:last], product[first:last], out[0][first:last], out[1][first:last]
        exact, rounded = room[0][: last - first], room[1][: last - first]
        if not (_add(w, layout, unit, p, exact) and _are_below(exact.view(np.uint64), most)):
            return first
        _round(exact, m_bits, bias, (o, rounded))
        _classes(exact, rounded, rounded.view(np.uint64), m_bits, 1 - bias, room[2], c)
    return int(words.size)


def _by_steps(words: Words, layout: FloatLayout, product: Values) -> tuple[Words, NDArray[np.uint8]]:
    """Return what :func:`sums` does, of words or sums that may be no numbers, infinite or very large."""
    with np.errstate(all="ignore"):
        exact = floats.widen(words, layout) + product
    rounded = floats.narrow(exact, layout)
    return rounded, floats.boundary_classes(exact, floats.widen(rounded, layout), layout)


def sums(words: Words, layout: FloatLayout, product: Values) -> tuple[Words, NDArray[np.uint8]]:
    """Return the words next to the values of ``words`` plus ``product``, and their boundary classes.

    The layout has an infinity, and at most 8 bits of exponent.
    The classes are those of :func:`theta_native.floats.boundary_classes`.
    """
    out = np.empty_like(words), np.empty(words.size, np.uint8)
    room = np.empty(_BLOCK)
    rooms = np.empty(_BLOCK), np.empty(_BLOCK), (room, room.view(np.int64))
    kind = (1 << (layout.exponent - 1)) - 1, layout.mantissa
    given = unwritable(words), tuple(Floats.of(layout)), kind, product, rooms, out
    at = _sums(*given, 0)
    while at < words.size:
        part = slice(at, at + _BLOCK)
        out[0][part], out[1][part] = _by_steps(words[part], layout, product[part])
        at = _sums(*given, at + _BLOCK)
    return out
