"""The choice of tokens, contexts and tables that code counted values in the fewest bits, in one kernel.

The calls of the functions that it would be otherwise take longer than a chunk of some thousand words.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theta_native import course, kernel, tokens
from theta_native.clusters import (
    Costs,
    Counts,
    Labels,
    Listing,
    Prices,
    Rooms,
    _improved,
    _joined,
    _list_row,
    _note,
)

TokenRule = tuple[int, int]
"""The (s, m) of :mod:`theta_native.tokens`."""
Names = NDArray[np.uint16]
ContextShape = tuple[int, int, int]
"""The numbers of classes, levels and fine classes.

A context is ``(class * levels + level) * fine classes + fine class``.
"""


@kernel
def _list(counts: Counts, listing: Listing) -> int:
    # List the counts of contexts; return how many occur.
    starts, totals = listing[1], listing[6]
    size: int = 0 * counts.shape[0]  # for a 0 as it is the call below would be compiled anew
    starts[0] = 0
    totals[:] = 0
    for context in range(counts.shape[0]):
        end = _list_row(counts[context], starts[size], listing[2], listing[3])
        size = _note(listing, size, context, end)
    return size


@kernel
def _regroup(
    listed: Listing,
    size: int,
    shape: ContextShape,
    parts: tuple[bool, bool],
    names: Names,
    room: Counts,
    listing: Listing,
) -> int:
    # List the contexts without levels or fine classes if they are not among `parts`, under other names of
    # tokens; return how many occur.  Contexts of a class are next to each other.  `room` is zero before and
    # after; it has a row for each context of a class.
    occurring, starts, old_names, numbers, _, _, _ = listed
    fine = shape[2] if parts[1] else 1
    of_class, count = shape[1] * shape[2], (shape[1] if parts[0] else 1) * fine
    listing[1][0] = 0
    listing[6][:] = 0
    i, found = 0, 0 * size
    while i < size:
        kind = occurring[i] // of_class
        while i < size and occurring[i] // of_class == kind:
            rest = occurring[i] - kind * of_class
            level, part = rest // shape[2], rest % shape[2]
            row = room[(level if parts[0] else 0) * fine + (part if parts[1] else 0)]
            for at in range(starts[i], starts[i + 1]):
                row[names[old_names[at]]] += np.uint32(numbers[at])
            i += 1
        for k in range(count):
            end = _list_row(room[k], listing[1][found], listing[2], listing[3])
            found = _note(listing, found, kind * count + k, end)
            room[k, :] = 0
    return found


@kernel
def _raw_bits(totals: Labels, widths: Labels) -> int:
    bits = 0
    for token in range(totals.size):
        bits += totals[token] * widths[token]
    return bits


@kernel
def _stored(labels: Labels, size: int, found: Labels, prices: Prices, room: Labels) -> float:
    # About the bits of tables, and of the map of contexts to them.
    count, entropy = found[0], 0.0
    for k in range(count):
        room[k] = 0
    for i in range(size):
        room[labels[i]] += 1
    for k in range(count):
        share = room[k] / size
        entropy -= share * np.log2(share)
    return float(found[1] * prices[0] + count * prices[2] + size * entropy * prices[1])


@course
def _bits(
    listing: Listing, size: int, prices: tuple[Prices, Costs], groups: Rooms, widths: Labels, labels: Labels
) -> float:
    # About all bits with contexts that are joined to good groups.
    joined = _joined(listing, size, prices[0], prices[1], groups, labels)
    return joined + _raw_bits(listing[6], widths)


@course
def _settle(
    listing: Listing,
    size: int,
    costs: tuple[Prices, float],
    groups: Rooms,
    widths: Labels,
    labels: Labels,
    found: tuple[Labels, Costs],
) -> None:
    # Improve the groups; note the bits of tokens, of tables and the map to them, and raw bits.
    numbers, bits = found
    bits[0] = _improved(listing, size, costs[1], groups, labels, numbers[4:])
    bits[1] = _stored(labels, size, numbers[4:], costs[0], groups[3][0])
    bits[2] = _raw_bits(listing[6], widths)


@course
def _search(
    size: int,
    shape: ContextShape,
    rules: tuple[Names, Labels],
    prices: tuple[tuple[Prices, Costs], float, float],
    listings: tuple[Listing, Listing],
    rooms: tuple[Rooms, Counts, Labels],
    numbers: Labels,
) -> None:
    # Look for what takes less than `least` bits: first another rule, then fewer parts of contexts.
    names, widths = rules
    costs, level_bits, least = prices
    listed, other = listings
    groups, room, labels = rooms
    levels, fine = shape[1] > 1, shape[2] > 1
    for rule in range(names.shape[0] - 1):
        count = _regroup(listed, size, shape, (levels, fine), names[rule], room, other)
        bits = _bits(other, count, costs, groups, widths[rule], labels) + (level_bits if levels else 0.0)
        if bits <= least:
            numbers[0], least = rule, bits
    rule = numbers[0]
    for way in range(3):
        parts = (levels and way == 0, fine and way == 1)
        if parts == (levels, fine) or (way < 2 and not (parts[0] or parts[1])):
            continue
        count = _regroup(listed, size, shape, parts, names[rule], room, other)
        bits = _bits(other, count, costs, groups, widths[rule], labels) + (level_bits if parts[0] else 0.0)
        if bits < least:
            numbers[1], numbers[2], least = parts[0], parts[1], bits


@course
def _choose(
    counted: tuple[Counts, ContextShape],
    rules: tuple[Names, Labels],
    prices: tuple[tuple[Prices, Costs], float, float, float],
    listings: tuple[Listing, Listing],
    rooms: tuple[Rooms, Counts, Labels],
    labels: Labels,
    found: tuple[Labels, Costs],
) -> int:
    # `rules` have the names of tokens and the raw bits of each, the finest rule last.  Return the number of
    # contexts that occur; `found` are the rule, whether levels and fine classes are used and which of the
    # listings has the contexts; and bits.
    counts, shape = counted
    names, widths = rules
    costs, level_bits, negligible, unseen = prices
    listed, other = listings
    numbers, sizes = found
    finest, size = names.shape[0] - 1, _list(counts, listed)
    levels, fine = shape[1] > 1, shape[2] > 1
    numbers[0], numbers[1], numbers[2], numbers[3] = finest, levels, fine, 0
    least = _bits(listed, size, costs, rooms[0], widths[finest], labels) + (level_bits if levels else 0.0)
    _settle(listed, size, (costs[0], unseen), rooms[0], widths[finest], labels, found)
    # Everything else saves some of what tables, their map and levels take, and nothing of the values.
    if sizes[1] + level_bits <= negligible * (sizes[0] + sizes[1] + sizes[2] + level_bits):
        return size
    _search(size, shape, rules, (costs, level_bits, least), listings, rooms, numbers)
    rule, parts = numbers[0], (numbers[1] > 0, numbers[2] > 0)
    if rule == finest and parts == (levels, fine):
        return size
    numbers[3], size = 1, _regroup(listed, size, shape, parts, names[rule], rooms[1], other)
    _bits(other, size, costs, rooms[0], widths[rule], labels)
    _settle(other, size, (costs[0], unseen), rooms[0], widths[rule], labels, found)
    return size


class CodingChoice(NamedTuple):
    """One way to code values, in about the fewest bits.

    Attributes:
        rule: which values are tokens.
        use_levels: whether contexts have levels.
        use_fine: whether they have fine classes.
        occurring: the contexts that occur, ascending; without the parts that are not used.
        labels: the cluster of each of them, without gaps.
        tokens: about the bits of all tokens.
        stored: about those of tables and of the map of contexts to clusters.
        raw_bits: the number of raw bits.
    """

    rule: TokenRule
    use_levels: bool
    use_fine: bool
    occurring: Labels
    labels: Labels
    tokens: float
    stored: float
    raw_bits: int

    @property
    def bits(self) -> float:
        """About the bits of tokens, raw bits, tables and the map of contexts."""
        return self.tokens + self.stored + self.raw_bits

    def clusters(self, count: int) -> NDArray[np.uint8]:
        """Return the cluster of each of ``count`` contexts; of one that was not counted, a neighbour's."""
        after = np.searchsorted(self.occurring, np.arange(count))
        found: NDArray[np.uint8] = self.labels[np.minimum(after, self.labels.size - 1)].astype(np.uint8)
        return found


@cache
def _products() -> Costs:
    """Return ``n * log2(n)`` of small numbers."""
    numbers = np.arange(1 << 12, dtype=np.float64)
    products: Costs = numbers * np.log2(np.maximum(numbers, 1))
    return products


@cache
def _names(bits: int, rules: tuple[TokenRule, ...]) -> tuple[Names, Labels]:
    """Return for each rule the tokens that are those of the last rule, and the raw bits of its own."""
    wide = tokens.alphabet(bits, *rules[-1])
    names, widths = np.zeros((len(rules), wide), np.uint16), np.zeros((len(rules), wide), np.int64)
    for k, rule in enumerate(rules):
        own = tokens.raw_widths(bits, *rule)
        names[k], widths[k, : own.size] = tokens.coarser(bits, rules[-1], rule), own
    return names, widths


class Estimate(NamedTuple):
    """Costs, in bits.

    Attributes:
        frequency: a frequency of a table that is not zero.
        member: a bit that tells the cluster of a context.
        cluster: a cluster.
        twice: the share of all bits that twice as many clusters must save.
        levels: the levels of blocks.
        negligible: the share of all bits below which tables are not worth a search for fewer of them.
        unseen: a token that a cluster does not have, and the most of any.
    """

    frequency: float
    member: float
    cluster: float
    twice: float
    levels: float
    negligible: float
    unseen: float


def choose(
    values: NDArray[np.unsignedinteger],
    contexts: NDArray[np.uint16],
    shape: ContextShape,
    rules: tuple[TokenRule, ...],
    costs: Estimate,
    most: int,
) -> CodingChoice:
    """Choose how to code ``values``, at least one.

    Args:
        values: the values.
        contexts: the context of each, below the product of ``shape``.
        shape: the parts of contexts.
        rules: the rules of tokens to choose from, the finest last.
        costs: what things cost.
        most: the largest number of clusters.
    """
    counts = tokens.counts(values, *rules[-1], contexts, shape[0] * shape[1] * shape[2])
    many, wide = counts.shape
    listings = [_listing(many, wide, min(counts.size, values.size)) for _ in range(2)]
    rooms = (
        *(np.empty(many, np.int64), np.empty(many, np.int64), np.empty((most, wide), np.int64)),
        *(np.empty((3, most), np.int64), np.empty((3, most)), np.empty((wide, most))),
    )
    room, labels = np.zeros((shape[1] * shape[2], wide), np.uint32), np.empty((2, many), np.int64)
    numbers, sizes = np.zeros(6, np.int64), np.zeros(3)
    size = _choose(
        (counts, shape),
        _names(8 * values.dtype.itemsize, rules),
        ((costs[:4], _products()), costs.levels, costs.negligible, costs.unseen),
        (listings[0], listings[1]),
        (rooms, room, labels[1]),
        labels[0],
        (numbers, sizes),
    )
    rule, use_levels, use_fine, listing, *_ = numbers.tolist()
    bits, stored, raw = sizes.tolist()
    occurring = listings[listing][0][:size]
    return CodingChoice(
        rules[rule], bool(use_levels), bool(use_fine), occurring, labels[0, :size], bits, stored, int(raw)
    )


def _listing(contexts: int, wide: int, most: int) -> Listing:
    """Return room for a listing of at most so many counts."""
    return (
        *(np.empty(contexts, np.int64), np.empty(contexts + 1, np.int64)),
        *(np.empty(most, np.uint16), np.empty(most)),
        *(np.empty(contexts, np.int64), np.empty(contexts), np.empty(wide, np.int64)),
    )
