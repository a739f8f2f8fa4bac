"""Entropy sections (``theta.codecs.entropy``), from the bytes of their tables to values."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theta_native import differences, given, kernel, rans, tokens, unwritable
from theta_native.contexts import ContextKeys, Keyed, _mark

Words = NDArray[Any]
Bytes = NDArray[np.uint8]
Ends = NDArray[np.int64]

DAMAGED, WRONG_SUMS, CUT_SHORT = -1, -2, -3
"""The results for damaged tables or streams, frequencies that do not add up, and too few raw bits."""
PLANES: Final = 4
"""Planes of an entropy section: labels, numbers of tokens, low and high bytes of frequencies."""
LONGEST: Final = 1 << 16
"""The most bytes of a plane: there are no more contexts."""

_ZERO: Final = np.int64(0)
_LABELS, _USED, _LOW, _HIGH = (np.int64(plane) for plane in range(PLANES))
"""The planes.  Numbers that numba takes for constants would have kernels compiled for each of them."""
_TOTAL: Final = rans.TOTAL
_LOWER: Final = rans.LOWER
_rans: Final = rans._decode
_raw: Final = tokens._read_raw
_step: Final = differences._step


@kernel
def _byte(planes: Bytes, ends: Ends, plane: np.int64, number: int | np.int64) -> int:
    # A plane that is constant has one byte, and a sign at its end.
    end = ends[plane + 1]
    return int(planes[end - 1] if ends[5 + plane] else planes[ends[plane] + number])


@kernel
def _fits(ends: Ends, plane: np.int64, size: int | np.int64) -> bool:
    length = ends[plane + 1] - ends[plane]
    return bool(length == 1 and size > 0) if ends[5 + plane] else bool(length == size)


@kernel
def _label(
    planes: Bytes,
    ends: Ends,
    sizes: tuple[int, int, int],
    numbers: NDArray[np.uint16],
    rooms: tuple[Bytes, Bytes, Bytes],
) -> bool:
    # The cluster of each key; those of contexts that occur stand in the first plane, in order.
    seen, by_key, of_contexts = rooms
    clusters, _, contexts = sizes
    for c in range(contexts):
        of_contexts[c] = 0
    for key in range(numbers.size):
        if seen[key]:
            of_contexts[numbers[key]] = 1
    occurring = _ZERO
    for c in range(contexts):
        occurring += of_contexts[c]
    if not _fits(ends, _LABELS, occurring if clusters > 1 else _ZERO):
        return False
    at = _ZERO
    for c in range(contexts):
        if of_contexts[c]:
            label = _byte(planes, ends, _LABELS, at) if clusters > 1 else 0
            if label >= clusters:
                return False
            of_contexts[c] = label
            at += 1
    for key in range(numbers.size):
        by_key[key] = of_contexts[numbers[key]]
    return True


@kernel
def _tabulate(
    planes: Bytes,
    ends: Ends,
    sizes: tuple[int, int, int],
    slots: NDArray[np.uint16],
    packed: NDArray[np.uint32],
) -> int:
    # The slots of each cluster, and the frequency and the first slot of each of its tokens.
    clusters, alphabet, _ = sizes
    if not _fits(ends, _USED, 2 * clusters):
        return DAMAGED
    at = _ZERO
    for c in range(clusters):
        used = _byte(planes, ends, _USED, 2 * c) | _byte(planes, ends, _USED, 2 * c + 1) << 8
        if used > alphabet:
            return DAMAGED
        at += used
    if not (_fits(ends, _LOW, at) and _fits(ends, _HIGH, at)):
        return DAMAGED
    at = _ZERO
    for c in range(clusters):
        used = _byte(planes, ends, _USED, 2 * c) | _byte(planes, ends, _USED, 2 * c + 1) << 8
        start = 0
        for token in range(used):
            own = _byte(planes, ends, _LOW, at) | _byte(planes, ends, _HIGH, at) << 8
            if start + own > _TOTAL:
                return WRONG_SUMS
            packed[c * alphabet + token] = np.uint32(own << 16 | start & 0xFFFF)
            for slot in range(c * _TOTAL + start, c * _TOTAL + start + own):
                slots[slot] = token
            start += own
            at += 1
        if start != _TOTAL:
            return WRONG_SUMS
    return 0


@kernel
def _decode(
    blob: Bytes,
    keyed: Keyed,
    numbers: NDArray[np.uint16],
    tables: tuple[Bytes, Ends, Ends],
    raw: tuple[NDArray[np.uint64], Bytes],
    rooms: tuple[Bytes, NDArray[np.uint16], NDArray[np.uint32]],
    values: Words,
) -> int:
    # Return the bytes of `blob` that were read: the stream, then raw bits.
    planes, ends, sizes = tables
    clusters, alphabet, contexts, size, themselves = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    shape, keys, rest = (clusters, alphabet, contexts), numbers.size, blob.size - 2 * sizes[3]
    seen, by_key, of_contexts = rooms[0][:keys], rooms[0][keys : 2 * keys], rooms[0][2 * keys :]
    slots, found = rooms[1][: clusters * _TOTAL], rooms[1][clusters * _TOTAL :][: values.size]
    words = rooms[1][clusters * _TOTAL + values.size :][: size + 4]
    states, packed = rooms[2][:4], rooms[2][4:][: clusters * alphabet]
    bits = rooms[2][4 + clusters * alphabet :][: (rest >> 2) + 4]
    for key in range(keys):
        seen[key] = 0
    _mark(keyed, seen)
    if not _label(planes, ends, shape, numbers, (seen, by_key, of_contexts)):
        return DAMAGED
    fault = _tabulate(planes, ends, shape, slots, packed)
    if fault:
        return int(fault)
    for i in range(size):
        words[i] = np.uint16(blob[2 * i]) | np.uint16(blob[2 * i + 1]) << np.uint16(8)
    for i in range(size, size + 4):
        words[i] = 0
    table = by_key, slots, packed, np.uint64(alphabet)
    if _rans(words, keyed, table, states, found) != size:
        return DAMAGED
    largest = 0
    for i in range(values.size):
        values[i] = found[i]
        largest = max(largest, int(found[i]))
    for k in range(4):
        if states[k] != _LOWER:
            return DAMAGED
    if largest < themselves:
        return int(2 * size)
    for i in range(bits.size):
        bits[i] = 0
    for i in range(rest):
        bits[i >> 2] |= np.uint32(blob[2 * size + i]) << np.uint32((i & 3) << 3)
    plain = np.uint16(themselves if 32 * rest < values.size else 0)
    read = _raw(found, raw[0], raw[1], bits, plain, np.uint64(8 * rest), values)
    return int(2 * size + ((read + 7) >> 3)) if read <= 8 * rest else CUT_SHORT


_values: Final = _decode
"""The name by which another kernel calls it."""


@kernel
def _change(
    of_words: tuple[NDArray[np.uint16], NDArray[np.uint16], int],
    arguments: tuple[
        Bytes,
        Keyed,
        NDArray[np.uint16],
        tuple[Bytes, Ends, Ends],
        tuple[NDArray[np.uint64], Bytes],
        tuple[Bytes, NDArray[np.uint16], NDArray[np.uint32]],
        Words,
    ],
    changed: tuple[Words, NDArray[np.uint32], bool],
) -> int:
    # The contexts of the places are the keys of the section.
    contexts, marks, parts = of_words
    blob, keyed, numbers, tables, raw, rooms, values = arguments
    words, places, is_float = changed
    for i in range(marks.size):
        keyed[0][i] = np.uint64(contexts[marks[i]]) // np.uint64(parts)
    read = _values(blob, keyed, numbers, tables, raw, rooms, values)
    if read == blob.size:
        _step(words, places, values, is_float)
    return read


@kernel
def _sum_up(stored: Bytes, levels: int, parts: int, numbers: Bytes) -> int:
    # `parts` are the contexts of a class.  A number is stored less the one before it of its class and level;
    # the first of these less that of the class before, or in the first class, of the level before.
    most, fine = 0, parts // levels
    for at in range(stored.size):
        inside = at % parts
        before = at - 1 if inside % fine else at - parts if at >= parts else at - fine
        numbers[at] = (int(stored[at]) + (int(numbers[before]) if before >= 0 else 0)) & 0xFF
        most = max(most, int(numbers[at]))
    return most


def summed(stored: Bytes, levels: int, parts: int, numbers: Bytes) -> int:
    """Put the numbers of contexts that are stored less those of others into ``numbers``; return the largest.

    ``levels`` and ``parts`` are the levels, and the contexts, of a class.  The numbers are modulo 256.
    """
    return int(_sum_up(unwritable(stored), levels, parts, numbers))


class SectionHead(NamedTuple):
    """The parts of a section before its stream; within their limits.

    Attributes:
        s, m: the rule of tokens.
        clusters: their number.
        size: the number of words of the stream.
        states: those of the decoder.
        planes: the bytes of its ``PLANES`` planes, or the one byte of a constant one.
        ends: where each begins and the last ends, then 1 for each that is constant.
    """

    s: int
    m: int
    clusters: int
    size: int
    states: Sequence[int]
    planes: Bytes
    ends: Ends


class ChangedWords(NamedTuple):
    """Words to be changed: at which places, which of ``keys.numbers`` these have."""

    words: Words
    keys: ContextKeys
    places: NDArray[np.uint32]
    numbers: NDArray[np.uint16]
    is_float: bool


_Arguments = tuple[Any, ...]


def _arguments(
    blob: Bytes, head: SectionHead, keys: ContextKeys, values: Words
) -> tuple[tuple[Hashable, ...], list[Any], _Arguments]:
    """Return what decides the types of the arguments of :func:`_decode`, their leaves, and the arguments."""
    dtype, numbers = values.dtype, keys.numbers.reshape(-1)
    bits, rest = dtype.itemsize * 8, blob.size - 2 * head.size
    alphabet = tokens.alphabet(bits, head.s, head.m)
    sizes = np.array([head.clusters, alphabet, keys.count, head.size, min(1 << head.s, 1 << bits)])
    rooms = (
        np.empty(2 * numbers.size + keys.count, np.uint8),
        np.empty(head.clusters * rans.TOTAL + values.size + head.size + 4, np.uint16),
        np.empty(8 + head.clusters * alphabet + rest // 4, np.uint32),
    )
    rooms[2][:4] = head.states
    raw = tokens.least(bits, head.s, head.m), tokens.raw_widths(bits, head.s, head.m)
    tables, blob = (head.planes, head.ends, sizes), unwritable(blob)
    words, shift, mask, levels, block = keys.parts
    leaves = [blob, words, int(shift), int(mask), levels, int(block), numbers, *tables, *raw, *rooms, values]
    key = dtype, *(array.flags.num for array in (words, levels, numbers, head.planes))
    return key, leaves, (blob, keys.parts, numbers, tables, raw, rooms, values)


def decode(blob: Bytes, head: SectionHead, keys: ContextKeys, dtype: np.dtype[Any]) -> tuple[Words, int]:
    """Return the values of a section, one for each of ``keys``, and the bytes of ``blob`` that were read.

    Args:
        blob: the bytes behind the tables, twice the size of the stream at least.
        head: what stands before them.
        keys: the contexts; blocks have multiples of four elements, if there is more than one.
        dtype: that of the values.

    In place of the bytes one of the faults above is returned where the section is damaged.
    """
    values: Words = np.empty(keys.words.size, dtype)
    key, leaves, arguments = _arguments(blob, head, keys, values)
    return values, int(given(_decode, key, leaves, lambda: arguments))


def change(blob: Bytes, head: SectionHead, changed: ChangedWords, contexts: int, parts: int) -> int:
    """Change words by a section, which is all of ``blob``; return the bytes that were read, or a fault.

    Its values are zigzagged differences less 1 (:mod:`theta_native.differences`).  The context of a place is
    ``1 / parts`` of that of its word, below ``contexts``.  Where less than all bytes were read, nothing is
    changed.
    """
    places, marks, size = changed.places, changed.numbers, changed.places.size
    keys = ContextKeys.of(np.empty(size, np.uint16), contexts)  # which the kernel fills
    of_words = changed.keys.numbers.reshape(-1), marks, parts
    key, leaves, arguments = _arguments(blob, head, keys, np.empty(size, changed.words.dtype))
    told = changed.words, places, changed.is_float
    key = *key, *(array.flags.num for array in (of_words[0], marks, changed.words, places))
    return int(given(_change, key, [*of_words, *leaves, *told], lambda: (of_words, arguments, told)))
