"""The two coders with 64-bit states (codecs.md: gaps.events and gaps.moves)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, cycle
from typing import Final

from tests.independent.primitives import require

_FLOOR: Final = 1 << 31
_TOTAL: Final = 1 << 28
_FARTHEST: Final = 1 << 18


def _slopes() -> list[int]:
    return [round(2**15 * (math.exp(-k / 8) - math.exp(-(k + 1) / 8))) for k in range(32)]


_SLOPES: Final = [*_slopes(), 0]
_CORNERS: Final = [0, *accumulate(slope << 13 for slope in _slopes())]


def _curve(hazard: int) -> int:
    """Return F of a sum of hazards, at most 2**18."""
    piece = hazard >> 13
    return _CORNERS[piece] + _SLOPES[piece] * (hazard & 8191)


class _States:
    """States of 64 bits that take in words of 32."""

    def __init__(self, states: list[int], stream: Sequence[int]) -> None:
        require(all(state >= _FLOOR for state in states), "a state is too low")
        self.states = states
        self._stream = stream
        self._at = 0

    def renormalise(self, which: int) -> None:
        """Take in a word if a state is too low."""
        if self.states[which] < _FLOOR:
            require(self._at < len(self._stream), "a stream of places is cut short")
            self.states[which] = self.states[which] << 32 | self._stream[self._at]
            self._at += 1
            require(self.states[which] >= _FLOOR, "a state is too low")

    def end(self) -> None:
        """Refuse a stream that does not end where the encoder began."""
        require(self._at == len(self._stream), "words are left over in a stream of places")
        require(set(self.states) == {_FLOOR}, "a stream of places does not end where it began")


def events(hazards: Sequence[int], states: list[int], stream: Sequence[int]) -> list[int]:
    """Return the numbers of the words that an event happens to."""
    coder = _States(states, stream)
    sums = [0, *accumulate(hazards)]
    count, found, at = len(hazards), [], 0
    for which in cycle((0, 1)):
        if at == count:
            break
        state = coder.states[which]
        slot = state & (_TOTAL - 1)
        last = (
            min(bisect_right(sums, sums[at] + _FARTHEST, at), count + 1) - 1
        )  # h is at most 2**18 before it
        place = _reach(sums, at, last, slot)
        low = _curve(sums[place] - sums[at])
        if place < last:
            high = _curve(sums[place + 1] - sums[at])
            found.append(place)
            at = place + 1
        else:
            high, at = _TOTAL, place
        coder.states[which] = (high - low) * (state >> 28) + slot - low
        coder.renormalise(which)
    coder.end()
    return found


def _reach(sums: Sequence[int], at: int, last: int, slot: int) -> int:
    """Return the word from ``at`` on, before ``last``, whose part of the curve has a slot; else ``last``."""
    low, high = at, last
    while low < high:
        middle = (low + high) // 2
        if _curve(sums[middle + 1] - sums[at]) > slot:
            high = middle
        else:
            low = middle + 1
    return low


def moves(
    clusters: Sequence[int], shares: Sequence[Sequence[int]], states: list[int], stream: Sequence[int]
) -> Iterator[int]:
    """Yield the move of each word, of which there are a multiple of 16."""
    coder = _States(states, stream)
    tables: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for symbol, first in enumerate(range(0, len(clusters), 2)):
        pair = clusters[first], clusters[first + 1]
        if pair not in tables:
            tables[pair] = _pairs(shares[pair[0]], shares[pair[1]])
        state = coder.states[symbol % 4]
        found, frequency, place = tables[pair][state & 1023]
        coder.states[symbol % 4] = frequency * (state >> 10) + place
        yield found & 3
        yield found >> 2
        if symbol % 8 == 7:
            for which in range(4):
                coder.renormalise(which)
    coder.end()


def _pairs(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (symbol, frequency, slot counted from the symbol's first) of each of 1024 slots."""
    products = [first[symbol & 3] * second[symbol >> 2] for symbol in range(16)]
    frequencies = [max((product + 2**13) >> 14, 1) if product else 0 for product in products]
    frequencies[frequencies.index(max(frequencies))] += 1024 - sum(frequencies)
    return [
        (symbol, frequency, place)
        for symbol, frequency in enumerate(frequencies)
        for place in range(frequency)
    ]
