"""Differences between words and their predictions, and magnitudes of the predictions.

A word is mapped to an unsigned integer of the same width in the order of the values, so that neighbouring
values differ by one.  Floats: the sign bit is set for positive words, negative words are complemented; signed
integers: the sign bit is flipped; others stand as they are.  The difference is that to the prediction, modulo
2**bits; where the prediction is a float with the sign bit set, its negative, so that it is counted away from
zero.  It is zigzagged: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...  Every step is a bijection of all bit
patterns, including NaNs.

The *magnitude* of a word is the exponent field of a float; of others, the length in bits of the integer, of a
negative one after it was complemented (that of -1 is 0, that of -128 is 7).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Words = NDArray[Any]
"""A one-dimensional, C-contiguous array of uint8, uint16, uint32 or uint64."""
Places = NDArray[np.uint32]

ZERO, ONE = np.uint64(0), np.uint64(1)


# The width is read from the dtype: as a constant it lets the compiler work in words of that width.


@kernel
def _difference(words: Words, predicted: Words, is_float: bool, out: Words) -> None:
    bits = np.uint64(np.iinfo(words.dtype).bits)
    top = ONE << (bits - ONE)
    mask = (top - ONE) | top
    for i in range(words.size):
        x, p = np.uint64(words[i]), np.uint64(predicted[i])
        negative = ZERO
        if is_float:
            negative = ZERO - (p >> (bits - ONE))
            x ^= top | (mask & (ZERO - (x >> (bits - ONE))))
            p ^= top | (mask & negative)
        d = (((x - p) ^ negative) - negative) & mask
        out[i] = ((d << ONE) ^ (ZERO - (d >> (bits - ONE)))) & mask


@kernel
def _restore(zigzag: Words, predicted: Words, is_float: bool, out: Words) -> None:
    bits = np.uint64(np.iinfo(zigzag.dtype).bits)
    top = ONE << (bits - ONE)
    mask = (top - ONE) | top
    for i in range(zigzag.size):
        z, p = np.uint64(zigzag[i]), np.uint64(predicted[i])
        d = (z >> ONE) ^ (ZERO - (z & ONE))
        if is_float:
            negative = ZERO - (p >> (bits - ONE))
            p ^= top | (mask & negative)
            x = (p + ((d ^ negative) - negative)) & mask
            out[i] = x ^ (top | (mask & ((x >> (bits - ONE)) - ONE)))
        else:
            out[i] = (p + d) & mask


@kernel
def _step(words: Words, places: Places, rest: Words, is_float: bool) -> None:
    # Change the words at `places`, their numbers; `rest` are the zigzagged differences less 1.
    bits = np.uint64(np.iinfo(words.dtype).bits)
    top = ONE << (bits - ONE)
    mask = (top - ONE) | top
    i, end = ZERO, np.uint64(places.size)
    while i < end:
        place, z = np.uint64(places[i]), (np.uint64(rest[i]) + ONE) & mask
        d, p = (z >> ONE) ^ (ZERO - (z & ONE)), np.uint64(words[place])
        if is_float:
            negative = ZERO - (p >> (bits - ONE))
            p ^= top | (mask & negative)
            x = (p + ((d ^ negative) - negative)) & mask
            words[place] = x ^ (top | (mask & ((x >> (bits - ONE)) - ONE)))
        else:
            words[place] = (p + d) & mask
        i += ONE


@kernel
def _exponents(words: Words, shift: np.uint64, mask: np.uint64, out: NDArray[np.uint16]) -> None:
    for i in range(words.size):
        out[i] = (np.uint64(words[i]) >> shift) & mask


@kernel
def _bit_lengths(words: Words, bits: np.uint64, signed: bool, out: NDArray[np.uint16]) -> None:
    for i in range(words.size):
        x = np.uint64(words[i])
        if signed and x >> (bits - ONE):
            x = ~x & ((ONE << (bits - ONE)) - ONE)
        length = 0
        while x:
            x >>= ONE
            length += 1
        out[i] = length


def difference(words: Words, predicted: Words, is_float: bool) -> Words:
    """Return the zigzagged differences of ``words`` to ``predicted``, with the same dtype and size."""
    out: Words = np.empty_like(words)
    _difference(words, predicted, is_float, out)
    return out


def restore(zigzag: Words, predicted: Words, is_float: bool) -> Words:
    """Return the words whose zigzagged differences to ``predicted`` are ``zigzag``."""
    out: Words = np.empty_like(predicted)
    _restore(zigzag, predicted, is_float, out)
    return out


def exponents(words: Words, exponent_bits: int) -> NDArray[np.uint16]:
    """Return the exponent field of every float word, whose highest bit is the sign."""
    out = np.empty(words.size, np.uint16)
    shift = words.dtype.itemsize * 8 - 1 - exponent_bits
    _exponents(words, np.uint64(shift), np.uint64((1 << exponent_bits) - 1), out)
    return out


def bit_lengths(words: Words, signed: bool) -> NDArray[np.uint16]:
    """Return the bit length of every integer word, without the sign."""
    out = np.empty(words.size, np.uint16)
    _bit_lengths(words, np.uint64(words.dtype.itemsize * 8), signed, out)
    return out
