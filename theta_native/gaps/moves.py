"""Words that change by at most one unit, two by two, in clusters that the decoder knows.

The *move* of a word is its difference (:mod:`theta_native.differences`) to what it was, counted away from
zero: 0 none, 1 one less, 2 one more, 3 another one, which is coded elsewhere.  Words have 16 bits, and as
many zeros stand behind them as make their number a multiple of 16; these have clusters as words of the block
that they fall into, and the move 0.  Each word has one of ``k`` *clusters*, at most 8, and a cluster has a
share of each move; the four add up to 4096.

A symbol is the moves of two words that follow each other, ``first + 4 * second``.  If their clusters are
``c`` and ``d``, it has a frequency, of 1024, by ``p = share[c][first] * share[d][second]``: 0 if ``p`` is 0,
else ``(p + 2**13) >> 14``, at least 1.  What the 16 frequencies lack to 1024 is added to the first of the
largest.

The symbols are coded by four interleaved 64-bit states of rANS (:mod:`theta_native.rans`), symbol ``i`` in
state ``i % 4``; its low 10 bits are the slot.  After each eight symbols, of which a state has decoded two,
every state below ``2**31`` takes in the next 32-bit word, in order.  All states are ``2**31`` at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theta_native import given, kernel
from theta_native.contexts import ContextKeys, Keyed

ShortWords = NDArray[np.uint16]
"""Words of 16 bits, a multiple of ``GROUP`` of them."""
Moves = NDArray[np.uint8]
Quads = NDArray[np.uint64]
"""Words, four by four, the first in the lowest bits."""
Shares = NDArray[np.uint32]
"""The share of each of four moves in each cluster."""
Frequencies = NDArray[np.uint32]

GROUP: Final = 16
MOST: Final = 8
"""The largest number of clusters."""
SHARES: Final = 4096
STATES: Final = 4
LOWER: Final = 1 << 31
OTHER: Final = 3

_PRECISION: Final = 10
_TOTAL: Final = 1 << _PRECISION
_ZERO, _ONE, _TWO, _THREE, _FOUR = (np.uint64(number) for number in range(5))
_EIGHT, _TWELVE, _SIXTEEN = np.uint64(8), np.uint64(12), np.uint64(16)
_BITS10, _BITS14, _BITS32, _BITS43, _BITS48 = (np.uint64(number) for number in (10, 14, 32, 43, 48))
_LOW2, _LOW4, _LOW10, _LOW32 = np.uint64(3), np.uint64(15), np.uint64(_TOTAL - 1), np.uint64(0xFFFFFFFF)
_LEAST, _OTHER = np.uint64(LOWER), np.uint64(OTHER)


@kernel
def _spread(frequencies: Frequencies, entries: NDArray[np.uint32]) -> None:
    # Of each slot: what a state gets on top of its quotient (10 bits), the symbol (4), whether one of its
    # moves is another one (1), and, from bit 16 on, the factor of the quotient.
    at = 0
    for i in range(frequencies.size):
        symbol = i & 15
        is_other = 1 if (symbol & 3) == 3 or symbol >> 2 == 3 else 0
        own = int(frequencies[i])
        first = np.uint32((own << 16) | (is_other << 14) | (symbol << 10))
        part = entries[at : at + own]  # of which the compiler fills several at once
        for k in range(part.size):
            part[k] = first + np.uint32(k)
        at += own


@kernel
def _frequencies(shares: Shares, first: int, second: int, found: Frequencies) -> None:
    # Those of the symbols of two words in these clusters; see the head of this module.
    largest, lack = 0, _TOTAL
    for i in range(16):
        product = int(shares[first, i & 3]) * int(shares[second, i >> 2])
        own = max((product + (1 << 13)) >> 14, 1) if product else 0
        found[i] = own
        lack -= own
        if own > int(found[largest]):
            largest = i
    found[largest] = np.uint32(int(found[largest]) + lack)


@kernel
def _prepare(
    shares: Shares,
    numbers: NDArray[np.uint16],
    clusters: NDArray[np.uint8],
    rows: tuple[NDArray[np.uint16], NDArray[np.uint16]],
    entries: NDArray[np.uint32],
    frequencies: Frequencies,
) -> None:
    # The row of each key's cluster as the first word and as the second, and the entries of all pairs.
    firsts, seconds = rows
    count = shares.shape[0]
    for key in range(numbers.size):
        seconds[key] = np.uint16(int(clusters[numbers[key]]) << _PRECISION)
        firsts[key] = np.uint16(int(seconds[key]) * count)
    for pair in range(count * count):
        _frequencies(shares, pair // count, pair % count, frequencies)
        _spread(frequencies, entries[pair << _PRECISION :])


@kernel
def _next(x: np.uint64, entry: np.uint64) -> np.uint64:
    return (entry >> _SIXTEEN) * (x >> _BITS10) + (entry & _LOW10)


@kernel
def _refill(x: np.uint64, word: np.uint32, at: np.uint64) -> tuple[np.uint64, np.uint64]:
    is_low, longer = x < _LEAST, (x << _BITS32) | np.uint64(word)
    return (longer if is_low else x), at + np.uint64(is_low)


@kernel
def _four(
    two: tuple[np.uint64, np.uint64],
    rows: tuple[NDArray[np.uint16], NDArray[np.uint16]],
    keyed: tuple[np.uint64, np.uint64, np.uint64],
    x: tuple[np.uint64, np.uint64, np.uint64, np.uint64],
    entries: NDArray[np.uint32],
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    # The entries of the next symbol of each state, for eight words.
    firsts, seconds = rows
    shift, mask, level = keyed
    p, q = two
    s1, s2, s3 = shift + _SIXTEEN, shift + _BITS32, shift + _BITS48
    a = np.uint64(firsts[level + ((p >> shift) & mask)]) + np.uint64(seconds[level + ((p >> s1) & mask)])
    b = np.uint64(firsts[level + ((p >> s2) & mask)]) + np.uint64(seconds[level + ((p >> s3) & mask)])
    c = np.uint64(firsts[level + ((q >> shift) & mask)]) + np.uint64(seconds[level + ((q >> s1) & mask)])
    d = np.uint64(firsts[level + ((q >> s2) & mask)]) + np.uint64(seconds[level + ((q >> s3) & mask)])
    return (
        np.uint64(entries[a + (x[0] & _LOW10)]),
        np.uint64(entries[b + (x[1] & _LOW10)]),
        np.uint64(entries[c + (x[2] & _LOW10)]),
        np.uint64(entries[d + (x[3] & _LOW10)]),
    )


@kernel
def _apply(
    out: tuple[Quads, Quads],
    i: np.uint64,
    two: tuple[np.uint64, np.uint64],
    found: tuple[np.uint64, np.uint64, np.uint64, np.uint64],
    steps: Quads,
    count: np.uint64,
) -> np.uint64:
    # Write eight words.  If one has another move, note their number and symbols: one note more is written.
    words, others = out
    e, f, g, h = found
    k, m = (e >> _BITS10) & _LOW4, (f >> _BITS10) & _LOW4
    n, o = (g >> _BITS10) & _LOW4, (h >> _BITS10) & _LOW4
    words[i] = two[0] + steps[k] + (steps[m] << _BITS32)
    words[i + _ONE] = two[1] + steps[n] + (steps[o] << _BITS32)
    others[count] = (i << _SIXTEEN) | k | (m << _FOUR) | (n << _EIGHT) | (o << _TWELVE)
    return count + (((e | f | g | h) >> _BITS14) & _ONE)


@kernel
def _undo(
    quads: Quads,
    out: tuple[Quads, Quads],
    keyed: tuple[np.uint64, np.uint64, NDArray[np.uint8], int],
    tables: tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint32], Quads],
    stream: NDArray[np.uint32],
    states: NDArray[np.uint64],
) -> int:
    # Nothing branches on what is decoded.  The last four of `stream` are padding.
    shift, mask, levels, block = keyed
    firsts, seconds, entries, steps = tables
    rows = firsts, seconds
    at, size, count = _ZERO, np.uint64(stream.size - 4), _ZERO
    a, b, c, d = states[0], states[1], states[2], states[3]
    for number in range(levels.size):
        key = shift, mask, np.uint64(levels[number]) * (mask + _ONE)
        i, end = np.uint64(number * block), np.uint64(min((number + 1) * block, quads.size))
        while i < end:
            one, two = (quads[i], quads[i + _ONE]), (quads[i + _TWO], quads[i + _THREE])
            e, f, g, h = _four(one, rows, key, (a, b, c, d), entries)
            a, b, c, d = _next(a, e), _next(b, f), _next(c, g), _next(d, h)
            count = _apply(out, i, one, (e, f, g, h), steps, count)
            e, f, g, h = _four(two, rows, key, (a, b, c, d), entries)
            a, b, c, d = _next(a, e), _next(b, f), _next(c, g), _next(d, h)
            count = _apply(out, i + _TWO, two, (e, f, g, h), steps, count)
            a, at = _refill(a, stream[at], at)
            b, at = _refill(b, stream[at], at)
            c, at = _refill(c, stream[at], at)
            d, at = _refill(d, stream[at], at)
            if at > size:
                return -1
            i += _FOUR
    states[0], states[1], states[2], states[3], states[4] = a, b, c, d, at
    return int(count)


@kernel
def _listed(others: Quads, places: NDArray[np.uint32]) -> int:
    # The last eight of `places` are padding; -1 if there is no room for all.
    count, i, end = _ZERO, _ZERO, np.uint64(others.size)
    room = np.uint64(places.size - 8)
    while i < end:
        if count > room:
            return -1
        place, moves = (others[i] >> _SIXTEEN) << _TWO, others[i]
        for _ in range(8):
            places[count] = np.uint32(place)
            count += np.uint64((moves & _LOW2) == _OTHER)
            moves >>= _TWO
            place += _ONE
        i += _ONE
    return int(count) if count <= room else -1


@kernel
def _numbers(places: NDArray[np.uint32], keyed: Keyed, numbers: NDArray[np.uint16]) -> None:
    keys, shift, mask, levels, block = keyed
    number, end, i, count = _ZERO, np.uint64(block), _ZERO, np.uint64(places.size)
    while i < count:
        place = np.uint64(places[i])
        while place >= end:
            number += _ONE
            end += np.uint64(block)
        numbers[i] = np.uint64(levels[number]) * (mask + _ONE) + ((np.uint64(keys[place]) >> shift) & mask)
        i += _ONE


@kernel
def _decode(
    keyed: Keyed,
    quads: tuple[Quads, Quads],
    tables: tuple[NDArray[np.uint16], NDArray[np.uint8], Shares, Quads],
    stream: NDArray[np.uint32],
    states: NDArray[np.uint64],
    rooms: tuple[NDArray[np.uint16], NDArray[np.uint32], Quads],
    found: tuple[NDArray[np.uint32], NDArray[np.uint16]],
) -> int:
    # The number of words with another move, or -1.  `rooms` take the rows of keys, the entries of all pairs
    # and 16 frequencies, and the groups of words with another move.
    _, shift, mask, levels, block = keyed
    numbers, clusters, shares, steps = tables
    rows, entries, others = rooms
    places, marks = found
    both = rows[: numbers.size], rows[numbers.size :]
    entries, frequencies = entries[:-16], entries[-16:]
    _prepare(shares, numbers, clusters, both, entries, frequencies)
    keys, all_tables = (shift, mask, levels, block // 4), (*both, entries, steps)
    groups = _undo(quads[0], (quads[1], others), keys, all_tables, stream, states)
    if groups < 0 or states[4] != np.uint64(stream.size - 4):
        return -1
    for k in range(STATES):
        if states[k] != _LEAST:
            return -1
    count = _listed(others[:groups], places)
    if count > 0:
        _numbers(places[:count], keyed, marks)
    return count


@kernel
def _moves(words: ShortWords, base: ShortWords, moves: Moves) -> None:
    for i in range(words.size):
        x, y = np.int32(words[i]), np.int32(base[i])
        d = x - y
        moves[i] = 0 if d == 0 else 1 if d == -1 else 2 if d == 1 else 3


@kernel
def _count(contexts: NDArray[np.uint16], moves: Moves, counts: NDArray[np.int64]) -> None:
    # Two tables, because adding to a count that was just written has to wait for the store.
    i, end = _ZERO, np.uint64(moves.size)
    while i < end:
        counts[i & _ONE, (np.uint64(contexts[i]) << _TWO) | np.uint64(moves[i])] += 1
        i += _ONE


@kernel
def _put(x: np.uint64, frequency: np.uint64, start: np.uint64) -> np.uint64:
    quotient = x // frequency
    return (quotient << _BITS10) + (x - quotient * frequency) + start


@kernel
def _encode(
    keyed: Keyed,
    moves: Moves,
    tables: tuple[NDArray[np.uint16], NDArray[np.uint16], Frequencies, Frequencies],
    states: NDArray[np.uint64],
    out: NDArray[np.uint32],
) -> int:
    # The last group of 16 words first, and of it the last state.
    keys, shift, mask, levels, block = keyed
    firsts, seconds, frequencies, starts = tables
    at, i = np.uint64(out.size), np.uint64(keys.size)
    number = np.uint64(levels.size)
    while number:
        number -= _ONE
        level, begin = np.uint64(levels[number]) * (mask + _ONE), number * np.uint64(block)
        while i > begin:
            i -= _SIXTEEN
            j = _FOUR
            while j:
                j -= _ONE
                one, two = i + _TWO * j, i + _EIGHT + _TWO * j
                row = np.uint64(firsts[level + ((np.uint64(keys[one]) >> shift) & mask)])
                row += np.uint64(seconds[level + ((np.uint64(keys[one + _ONE]) >> shift) & mask)])
                one = row + np.uint64(moves[one]) + _FOUR * np.uint64(moves[one + _ONE])
                row = np.uint64(firsts[level + ((np.uint64(keys[two]) >> shift) & mask)])
                row += np.uint64(seconds[level + ((np.uint64(keys[two + _ONE]) >> shift) & mask)])
                two = row + np.uint64(moves[two]) + _FOUR * np.uint64(moves[two + _ONE])
                f, g, x = np.uint64(frequencies[one]), np.uint64(frequencies[two]), states[j]
                if x >= (f * g) << _BITS43:
                    at -= _ONE
                    out[at] = np.uint32(x & _LOW32)
                    x >>= _BITS32
                states[j] = _put(_put(x, g, np.uint64(starts[two])), f, np.uint64(starts[one]))
    return int(at)


@cache
def _steps() -> Quads:
    """Return what is added, modulo 2**64, to two words for each symbol."""
    one = np.array([0, -1, 1, 0], np.int64)
    found: Quads = (one[None, :] + (one[:, None] << 16)).reshape(-1).view(np.uint64)
    return found


def frequencies_of(shares: Shares) -> Frequencies:
    """Return the frequencies of symbols for each two clusters, a row for each; ``shares`` must add up."""
    products = shares[:, None, None, :] * shares[None, :, :, None]  # cluster, cluster, second, first
    products = products.reshape(-1, 16)
    half = np.uint32(1 << 13)
    found = np.where(products > 0, np.maximum((products + half) >> np.uint32(14), 1), 0).astype(np.uint32)
    rows = np.arange(found.shape[0])
    lack = _TOTAL - found.sum(axis=1, dtype=np.int64)
    largest = found.argmax(axis=1)
    found[rows, largest] = (found[rows, largest] + lack).astype(np.uint32)
    return found


def _rows(
    table: NDArray[np.uint8], clusters: int, width: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return the row of each key's cluster among tables of ``width``, as the first word and as the second."""
    seconds = table.astype(np.uint16) * np.uint16(width)
    return seconds * np.uint16(clusters), seconds


def moves_of(words: ShortWords, base: ShortWords) -> Moves:
    """Return the move of each word of ``base`` that becomes one of ``words``."""
    found = np.empty(words.size, np.uint8)
    _moves(words, base, found)
    return found


def counts_of(contexts: NDArray[np.uint16], moves: Moves, count: int) -> NDArray[np.int64]:
    """Return how often each of four moves is in each of ``count`` contexts."""
    counts = np.zeros((2, 4 * count), np.int64)
    _count(contexts, moves, counts)
    found: NDArray[np.int64] = counts.sum(axis=0).reshape(count, 4)
    return found


def encode(
    keys: ContextKeys, moves: Moves, clusters: NDArray[np.uint8], shares: Shares
) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Encode the moves of ``keys.words``; return the final states and the 32-bit words as they are read.

    ``clusters`` has the cluster of each context of ``keys``, whose blocks have multiples of ``GROUP`` words.
    """
    frequencies = frequencies_of(shares)
    starts = np.cumsum(frequencies, axis=1, dtype=np.uint32) - frequencies
    tables = _rows(keys.table(clusters), shares.shape[0], 16)
    states, out = np.full(STATES, LOWER, np.uint64), np.empty(moves.size // 2 + 1, np.uint32)
    at = int(_encode(keys.parts, moves, (*tables, frequencies.reshape(-1), starts.reshape(-1)), states, out))
    return states, out[at:]


@dataclass(frozen=True)
class OtherMoves:
    """The words with another move, which are as they were.

    Attributes:
        places: which of the words they are.
        numbers: the number of each in ``keys.numbers``, which is two-dimensional.
    """

    places: NDArray[np.uint32]
    numbers: NDArray[np.uint16]


def decode(
    states: NDArray[np.uint64],
    stream: NDArray[np.uint32],
    keys: ContextKeys,
    clusters: NDArray[np.uint8],
    shares: Shares,
    out: ShortWords,
    most: int,
) -> OtherMoves | None:
    """Put what ``keys.words`` become as their moves tell into ``out``; None if the data is damaged.

    So it is if more than ``most`` words have another move.  ``clusters`` has the cluster of each context of
    ``keys``, whose blocks have multiples of ``GROUP`` words.  Each row of ``shares`` must add up to
    ``SHARES``.
    """
    words, shift, mask, levels, block = keys.parts
    numbers, pairs = keys.numbers.reshape(-1), shares.shape[0] ** 2
    final = np.zeros(STATES + 1, np.uint64)
    final[:STATES] = states
    padded = np.zeros(stream.size + 4, np.uint32)
    padded[: stream.size] = stream  # which need not be aligned
    rows, others = np.empty(2 * numbers.size, np.uint16), np.empty(words.size // 8 + 1, np.uint64)
    entries = np.empty((pairs << _PRECISION) + 16, np.uint32)
    places, marks = np.empty(most + 8, np.uint32), np.empty(most, np.uint16)
    quads = words.view(np.uint64), out.view(np.uint64)
    tables, rooms, found = (numbers, clusters, shares, _steps()), (rows, entries, others), (places, marks)
    leaves = [words, int(shift), int(mask), levels, block, *quads, *tables, padded, final, *rooms, *found]
    key = tuple(array.flags.num for array in (words, levels, numbers, clusters, shares))
    arguments = keys.parts, quads, tables, padded, final, rooms, found
    count = int(given(_decode, key, leaves, lambda: arguments))
    return None if count < 0 else OtherMoves(places[:count], marks[:count])
