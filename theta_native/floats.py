"""Conversion between floating-point words and float64, in integer arithmetic.

The results are the same on every machine, whatever its instructions do with NaNs and subnormals: IEEE 754
round to nearest, ties to even.  A NaN becomes the positive quiet NaN without payload, because machines differ
in arithmetic on NaNs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint8, uint16, uint32 or uint64."""
Values = NDArray[np.float64]
Bits = NDArray[np.uint64]

_ZERO, _ONE = np.uint64(0), np.uint64(1)
_QUIET = np.uint64(0x7FF8000000000000)
_INFINITE = np.uint64(0x7FF0000000000000)
_MANTISSA = np.uint64((1 << 52) - 1)
_UNSIGNED = np.int64((1 << 63) - 1)


@dataclass(frozen=True)
class FloatLayout:
    """A float of a sign, ``exponent`` bits and ``mantissa`` bits; ``finite`` has no infinity (e4m3fn)."""

    exponent: int
    mantissa: int
    finite: bool = False


@kernel
def _widen(words: Words, e_bits: int, m_bits: int, finite: bool, out: Bits) -> None:
    e_top, bias = (1 << e_bits) - 1, (1 << (e_bits - 1)) - 1
    m_top = (_ONE << np.uint64(m_bits)) - _ONE
    gap = np.uint64(52 - m_bits)
    for i in range(words.size):
        x = np.uint64(words[i])
        sign = ((x >> np.uint64(e_bits + m_bits)) & _ONE) << np.uint64(63)
        e = int((x >> np.uint64(m_bits)) & np.uint64(e_top))
        m = x & m_top
        if e == e_top and (m == m_top if finite else m != _ZERO):
            out[i] = _QUIET
        elif e == e_top and not finite:
            out[i] = sign | _INFINITE
        elif e == 0 and m == _ZERO:
            out[i] = sign
        elif e == 0 and e_bits == 11:
            out[i] = sign | m
        else:
            if e == 0:
                e = 1
                while not m >> np.uint64(m_bits):
                    m <<= _ONE
                    e -= 1
            out[i] = sign | (np.uint64(e - bias + 1023) << np.uint64(52)) | ((m & m_top) << gap)


@kernel
def _narrow(values: Bits, e_bits: int, m_bits: int, finite: bool, out: Words) -> None:
    e_top, bias = (1 << e_bits) - 1, (1 << (e_bits - 1)) - 1
    infinite = np.uint64(e_top) << np.uint64(m_bits)
    m_top = (_ONE << np.uint64(m_bits)) - _ONE
    nan = infinite | (m_top if finite else _ONE << np.uint64(m_bits - 1))
    over, limit = (nan, nan) if finite else (infinite, infinite)
    for i in range(values.size):
        x = values[i]
        sign = (x >> np.uint64(63)) << np.uint64(e_bits + m_bits)
        e, m = int((x >> np.uint64(52)) & np.uint64(2047)), x & _MANTISSA
        if e == 2047:
            out[i] = nan if m != _ZERO else sign | over
        elif e == 0 and e_bits < 11:
            out[i] = sign
        elif e_bits == 11:
            out[i] = x
        else:
            e += bias - 1023
            m |= _ONE << np.uint64(52)
            shift = 52 - m_bits + (1 - e if e < 1 else 0)
            if shift > 54:
                out[i] = sign
                continue
            rest = m & ((_ONE << np.uint64(shift)) - _ONE)
            half = _ONE << np.uint64(shift - 1)
            m >>= np.uint64(shift)
            if rest > half or (rest == half and m & _ONE):
                m += _ONE
            if e > 1:
                m += np.uint64(e - 1) << np.uint64(m_bits)
            out[i] = sign | (m if m < limit else over)


def widen(words: Words, layout: FloatLayout) -> Values:
    """Return the exact values of float words."""
    out = np.empty(words.size, np.uint64)
    _widen(words, layout.exponent, layout.mantissa, layout.finite, out)
    return out.view(np.float64)


def narrow(values: Values, layout: FloatLayout) -> Words:
    """Round ``values`` to float words of 8, 16, 32 or 64 bits."""
    out: Words = np.empty(values.size, f"<u{(1 + layout.exponent + layout.mantissa) // 8}")
    _narrow(values.view(np.uint64), layout.exponent, layout.mantissa, layout.finite, out)
    return out


_BLOCK = 1024


@kernel
def _boundary_classes(
    exact: Values,
    rounded: Values,
    bits: Bits,
    mantissa: int,
    smallest: int,
    block: tuple[Values, NDArray[np.int64]],
    out: NDArray[np.uint8],
) -> None:
    # No branch and no look-up, so the compiler makes vectors of it.  `block` is the same memory as floats and
    # as their bits: first the power of two that makes units of the last place, then the room up to the next
    # boundary, whose exponent is the depth, with the sign of t.
    room, found = block
    for first in range(0, exact.size, _BLOCK):
        last = min(first + _BLOCK, exact.size)
        e, r, b, o = exact[first:last], rounded[first:last], bits[first:last], out[first:last]
        for i in range(b.size):
            power: Any = np.int64((b[i] >> np.uint64(52)) & np.uint64(2047)) - 1023
            found[i] = min(1023 + mantissa - max(power, smallest), 2047) << 52
        for i in range(e.size):
            x, p = abs(e[i]), abs(r[i])
            t = (x - p) * room[i]
            left = np.copysign(max(0.5 - abs(t), 0.0), t)
            room[i] = left if x < np.inf and p < np.inf else 0.0
        for i in range(o.size):
            depth = 1021 - (((found[i] & _UNSIGNED) - 1) >> 52)
            o[i] = 2 * min(max(depth, 0), 7) + np.int64(found[i] < 0)


def boundary_classes(exact: Values, rounded: Values, layout: FloatLayout) -> NDArray[np.uint8]:
    """Return the class of each exact value by its distance from the boundaries of its rounding.

    With ``t = (|exact| - |rounded|) / unit in the last place of rounded``, between -1/2 and 1/2, it is
    ``2 * min(7, floor(-log2(1/2 - |t|)) - 1) + (1 if t < 0 else 0)``.  If ``|t|`` is 1/2 or more, the first
    term is 14, and if a value is not finite, the class is 14.
    """
    out = np.empty(exact.size, np.uint8)
    smallest = 2 - (1 << (layout.exponent - 1))
    room = np.empty(_BLOCK)
    block = room, room.view(np.int64)
    _boundary_classes(exact, rounded, rounded.view(np.uint64), layout.mantissa, smallest, block, out)
    return out


_MANTISSA16, _ROUND16, _ODD16 = np.uint32(16), np.uint32(0x7FFF), np.uint32(1)
_UNSIGNED32, _INFINITE32, _QUIET16 = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), np.uint32(0x40)


@kernel
def _widen_bfloats(words: NDArray[np.uint16], out: NDArray[np.uint32]) -> None:
    for i in range(words.size):
        out[i] = np.uint32(np.uint32(words[i]) << _MANTISSA16)


@kernel
def _narrow_to_bfloats(bits: NDArray[np.uint32], out: NDArray[np.uint16]) -> None:
    for i in range(bits.size):
        x = np.uint32(bits[i])
        high = np.uint32(x >> _MANTISSA16)
        rounded = np.uint32(np.uint32(x + _ROUND16 + (high & _ODD16)) >> _MANTISSA16)
        out[i] = np.uint16(high | _QUIET16 if (x & _UNSIGNED32) > _INFINITE32 else rounded)


def widen_bfloats(words: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the exact values of bf16 words."""
    out = np.empty(words.size, np.uint32)
    _widen_bfloats(words, out)
    return out.view(np.float32)


def narrow_to_bfloats(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round ``values`` to bf16 words, to nearest, ties to even; NaNs keep the high bits of their payload."""
    out = np.empty(values.size, np.uint16)
    _narrow_to_bfloats(values.view(np.uint32), out)
    return out
