"""Places of rare events among words, by a rate that the decoder knows of each word.

Each word has a *hazard*, a whole number from 1 to ``2**18``: the chance that nothing happens to it is
``e ** -(hazard / 2**16)``.  One symbol tells how far the next event is, so that words to which nothing
happens cost an addition.  With ``h`` the sum of the hazards of the words since the last symbol, the event
happens to the word that takes ``h`` to ``h'`` with a frequency of ``F(h') - F(h)`` of ``2**28``.  ``F`` is a
curve of 32 straight pieces from ``F(0) = 0``; piece ``k``, from ``h = k * 2**13`` on, rises by
``round(2**15 * (e ** -(k / 8) - e ** -((k + 1) / 8)))`` with each unit of hazard.  If ``h'`` is above
``2**18``, the symbol is that of no event before this word, with a frequency of ``2**28 - F(h)``; so is the
last symbol, before the end.  After each symbol ``h`` is 0 again.

The symbols are coded by two interleaved 64-bit states of rANS (:mod:`theta_native.rans`), in turn,
with 32-bit renormalisation: a state is at least ``2**31``, and ``2**31`` at the end.  The low 28 bits of a
state are the slot; those from ``F(h)`` up to ``F(h')`` mean the event at the word that takes ``h`` to ``h'``.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theta_native import given, kernel
from theta_native.contexts import ContextKeys, Keyed

Hazards = NDArray[np.uint32]
Places = NDArray[np.uint32]
Contexts = NDArray[np.uint16]
Curve = NDArray[np.uint64]
"""The F that each piece begins with (at 0), its rise (at 40), and the reciprocal of that (at 80).

The piece before which a slot cannot be follows, for the upper ten bits of slots (at 120).
"""

MOST: Final = 1 << 18
"""The largest hazard."""
UNIT: Final = 1 << 16
"""The hazard of a word to which nothing happens with the chance 1 / e."""
STATES: Final = 2
LOWER: Final = 1 << 31

_PIECES: Final = 32
_ZERO, _ONE, _TWO, _THREE, _FOUR = (np.uint64(number) for number in range(5))
_PIECE, _WITHIN = np.uint64(13), np.uint64((1 << 13) - 1)
_RISES, _RECIPROCALS, _FIRST_PIECES = np.uint64(40), np.uint64(80), np.uint64(120)
_PRECISION, _ALL, _SLOT = np.uint64(28), np.uint64(1 << 28), np.uint64((1 << 28) - 1)
_TOP, _BITS32, _BITS35, _BITS40 = np.uint64(18), np.uint64(32), np.uint64(35), np.uint64(40)
_LOW32 = np.uint64(0xFFFFFFFF)
_LEAST, _LARGEST = np.uint64(LOWER), np.uint64(MOST)


@cache
def _curve() -> Curve:
    found = np.zeros(120 + 1024, np.uint64)
    ends = np.exp(-np.arange(_PIECES + 1) / 8)
    rises = np.rint((1 << 15) * (ends[:-1] - ends[1:])).astype(np.uint64)
    begins = np.concatenate([[_ZERO], np.cumsum(rises << _PIECE, dtype=np.uint64)])
    found[: _PIECES + 1] = begins
    found[_PIECES + 1] = _ALL
    found[40 : 40 + _PIECES] = rises
    found[80 : 80 + _PIECES] = ((_ONE << _BITS40) + rises - _ONE) // rises
    found[120:] = np.searchsorted(begins, np.arange(1024, dtype=np.uint64) << _TOP, side="right") - 1
    return found


@kernel
def _share(hazard: np.uint64, curve: Curve) -> np.uint64:
    # F of a hazard of at most MOST.
    piece = hazard >> _PIECE
    found: np.uint64 = curve[piece] + curve[_RISES + piece] * (hazard & _WITHIN)
    return found


@kernel
def _hazard(slot: np.uint64, curve: Curve) -> np.uint64:
    # The largest hazard, up to MOST, whose F is not above the slot.  No 1024th of the slots is longer than a
    # piece, and the quotient by a reciprocal is exact, since the dividend is below 2**25.
    piece = curve[_FIRST_PIECES + (slot >> _TOP)]
    piece += np.uint64(slot >= curve[piece + _ONE])
    found: np.uint64 = (piece << _PIECE) + (((slot - curve[piece]) * curve[_RECIPROCALS + piece]) >> _BITS40)
    return found


@kernel
def _scan(
    keyed: Keyed,
    hazards: Hazards,
    curve: Curve,
    words: NDArray[np.uint32],
    states: NDArray[np.uint64],
    places: Places,
    found: Contexts,
) -> int:
    # The last of `words`, `places` and `found` are padding.  A loop of few variables skips four words;
    # in which of them an event is, is found without a branch, which would be unpredictable.
    keys, shift, mask, levels, block = keyed
    at, size, count, room = _ZERO, np.uint64(words.size - 1), _ZERO, np.uint64(places.size - 1)
    x, y = states[0], states[1]
    until, next_until = _hazard(x & _SLOT, curve), _hazard(y & _SLOT, curve)
    i, sum0 = _ZERO, _ZERO
    for number in range(levels.size):
        level = np.uint64(levels[number]) * (mask + _ONE)
        end = np.uint64(min((number + 1) * block, keys.size))
        while i < end:
            sum1 = sum2 = sum3 = sum4 = sum0
            while i + _FOUR <= end:
                sum1 = sum0 + np.uint64(hazards[level + ((np.uint64(keys[i]) >> shift) & mask)])
                sum2 = sum1 + np.uint64(hazards[level + ((np.uint64(keys[i + _ONE]) >> shift) & mask)])
                sum3 = sum2 + np.uint64(hazards[level + ((np.uint64(keys[i + _TWO]) >> shift) & mask)])
                sum4 = sum3 + np.uint64(hazards[level + ((np.uint64(keys[i + _THREE]) >> shift) & mask)])
                if sum4 > until:
                    break
                sum0 = sum4
                i += _FOUR
            if i == end:
                break
            if i + _FOUR <= end:
                is1, is2, is3 = sum1 <= until, sum2 <= until, sum3 <= until
                before = sum1 if is1 else sum0
                after = sum2 if is1 else sum1
                before = sum2 if is2 else before
                after = sum3 if is2 else after
                before = sum3 if is3 else before
                after = sum4 if is3 else after
                i += np.uint64(is1) + np.uint64(is2) + np.uint64(is3)
            else:
                before = sum0
                after = sum0 + np.uint64(hazards[level + ((np.uint64(keys[i]) >> shift) & mask)])
                if after <= until:
                    sum0 = after
                    i += _ONE
                    continue
            first, last, sum0 = _share(before, curve), _ALL, _ZERO
            places[count] = np.uint32(i)
            found[count] = np.uint16(level + ((np.uint64(keys[i]) >> shift) & mask))
            if after <= _LARGEST:
                if count >= room:
                    return -1
                last = _share(after, curve)
                count += _ONE
                i += _ONE
            x = (last - first) * (x >> _PRECISION) + (x & _SLOT) - first
            is_low = x < _LEAST
            refilled = (x << _BITS32) | np.uint64(words[at])
            at += np.uint64(is_low)
            x = refilled if is_low else x
            if at > size:
                return -1
            z = x
            x = y
            y = z
            until = next_until
            next_until = _hazard(y & _SLOT, curve)
    first = _share(sum0, curve)
    x = (_ALL - first) * (x >> _PRECISION) + (x & _SLOT) - first
    if x < _LEAST:
        x = (x << _BITS32) | np.uint64(words[at])
        at += _ONE
    states[0], states[1], states[2] = x, y, at
    return int(count)


@kernel
def _decode(
    keyed: Keyed,
    numbers: NDArray[np.uint16],
    hazards: Hazards,
    curve: Curve,
    room: NDArray[np.uint32],
    states: NDArray[np.uint64],
    found: tuple[Places, Contexts],
) -> int:
    # Whether all is as it must be.  In `room` there is a place for the hazard of each key; the words and one
    # of padding follow.
    table, words = room[: numbers.size], room[numbers.size :]
    for key in range(table.size):
        table[key] = hazards[numbers[key]]
    size = words.size - 1
    words[size] = 0
    count = _scan(keyed, table, curve, words, states, found[0], found[1])
    is_whole = count == found[0].size - 1 and states[2] == size
    return int(is_whole and states[0] == _LEAST and states[1] == _LEAST)


@kernel
def _walk(
    contexts: Contexts,
    hazards: Hazards,
    curve: Curve,
    places: Places,
    firsts: NDArray[np.uint32],
    frequencies: NDArray[np.uint32],
) -> int:
    # What the symbols begin with, and their frequencies.
    i, before, at = _ZERO, _ZERO, _ZERO
    for number in range(places.size + 1):
        end = np.uint64(places[number]) if number < places.size else np.uint64(contexts.size)
        while i < end:
            after = before + np.uint64(hazards[contexts[i]])
            if after > _LARGEST:
                first = _share(before, curve)
                firsts[at], frequencies[at] = np.uint32(first), np.uint32(_ALL - first)
                at += _ONE
                before = _ZERO
            else:
                before = after
                i += _ONE
        after = _ALL
        if number < places.size:
            after = before + np.uint64(hazards[contexts[i]])
            if after > _LARGEST:
                first = _share(before, curve)
                firsts[at], frequencies[at] = np.uint32(first), np.uint32(_ALL - first)
                at += _ONE
                after -= before
                before = _ZERO
            after = _share(after, curve)
            i += _ONE
        first = _share(before, curve)
        firsts[at], frequencies[at] = np.uint32(first), np.uint32(after - first)
        at += _ONE
        before = _ZERO
    return int(at)


@kernel
def _put(
    firsts: NDArray[np.uint32],
    frequencies: NDArray[np.uint32],
    states: NDArray[np.uint64],
    out: NDArray[np.uint32],
) -> int:
    # The last symbol first; the room behind what is written is that of one word a symbol.
    at, i = np.uint64(out.size), np.uint64(firsts.size)
    while i:
        i -= _ONE
        x, frequency = states[i & _ONE], np.uint64(frequencies[i])
        if x >= frequency << _BITS35:
            at -= _ONE
            out[at] = np.uint32(x & _LOW32)
            x >>= _BITS32
        quotient = x // frequency
        states[i & _ONE] = (quotient << _PRECISION) + (x - quotient * frequency) + np.uint64(firsts[i])
    return int(at)


def encode(
    contexts: Contexts, hazards: Hazards, total: int, places: Places
) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Encode ``places``, which rise; return the final states and the 32-bit words as they are read.

    Args:
        contexts: the context of each word.
        hazards: the hazard of each context, 1 to ``MOST``.
        total: the sum of the hazards of all words.
        places: the numbers of the words with an event.
    """
    # Two symbols of no event in a row have more than MOST between them.
    most = 2 * places.size + 2 * total // MOST + 4
    firsts, frequencies = np.empty(most, np.uint32), np.empty(most, np.uint32)
    number = _walk(contexts, hazards, _curve(), places, firsts, frequencies)
    states, out = np.full(STATES, LOWER, np.uint64), np.empty(number, np.uint32)
    at = _put(firsts[:number], frequencies[:number], states, out)
    return states, out[at:]


def decode(
    states: NDArray[np.uint64],
    words: NDArray[np.uint32],
    keys: ContextKeys,
    hazards: Hazards,
    count: int,
) -> tuple[Places, Contexts] | None:
    """Decode ``count`` places; None if the data is damaged.

    ``hazards`` has the hazard of each context of ``keys``, 1 to ``MOST``.  With the places come their numbers
    in ``keys.numbers``, which is two-dimensional.
    """
    numbers = keys.numbers.reshape(-1)
    room = np.empty(numbers.size + words.size + 1, np.uint32)
    room[numbers.size : -1] = words  # which need not be aligned
    final = np.empty(STATES + 1, np.uint64)
    final[:STATES] = states
    found = np.empty(count + 1, np.uint32), np.empty(count + 1, np.uint16)
    words_of, shift, mask, levels, block = keys.parts
    leaves = [words_of, int(shift), int(mask), levels, block, numbers, hazards, _curve(), room, final, *found]
    key = tuple(array.flags.num for array in (words_of, levels, numbers, hazards))
    arguments = keys.parts, numbers, hazards, _curve(), room, final, found
    is_whole = given(_decode, key, leaves, lambda: arguments)
    return (found[0][:count], found[1][:count]) if is_whole else None
