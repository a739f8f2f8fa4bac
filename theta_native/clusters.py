"""Clustering contexts with similar distributions of tokens, so that few tables serve many contexts.

These are kernels that :mod:`theta_native.coded.choices` calls.  Tuples of arrays are passed on as they are:

* a *listing* has the counts that are not zero: the contexts that occur, where the tokens of each begin,
  tokens and counts; of each context its total and its mean token; and the total of each token;
* *rooms* are for groups: an order of contexts and room for another, sums ``(most, tokens)``, links and bits
  ``(3, most)``, and costs ``(tokens, most)``, where ``most`` is the largest number of groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Counts = NDArray[np.uint32]
"""Counts of each token in each context, shape ``(contexts, tokens)``."""
Labels = NDArray[np.int64]
Costs = NDArray[np.float64]
Listing = tuple[Labels, Labels, NDArray[np.uint16], Costs, Labels, Costs, Labels]
Rooms = tuple[Labels, Labels, Labels, Labels, Costs, Costs]
Prices = tuple[float, float, float, float]
"""The bits of a frequency of a table, of a bit that tells the group of a context, and of a group; and the
share of all bits that twice as many groups must save."""


@kernel
def _list_row(row: NDArray[np.uint32], at: np.int64, tokens: NDArray[np.uint16], numbers: Costs) -> np.int64:
    # List what is not zero from place `at` on; return where it ends.  Most rows have few tokens, or none.
    found, token = np.uint32(0), 0
    for k in range(row.size):
        found += np.uint32(row[k] != 0)
    end = at + np.int64(found)
    while at < end:
        tokens[at] = token
        numbers[at] = float(row[token])
        at += np.int64(row[token] != 0)
        token += 1
    return end


@kernel
def _note(listing: Listing, number: int, context: int, end: np.int64) -> int:
    # Take a context whose tokens end at `end` as the next one, if it has any; return the count of contexts.
    occurring, starts, tokens, numbers, weights, means, totals = listing
    if end == starts[number]:
        return number
    occurring[number], starts[number + 1] = context, end
    weight, total = 0.0, 0.0
    for at in range(starts[number], end):
        weight += numbers[at]
        total += numbers[at] * tokens[at]
        totals[tokens[at]] += np.int64(numbers[at])
    weights[number], means[number] = np.int64(weight), total / weight
    return number + 1


@kernel
def _sort(means: Costs, size: int, order: Labels, room: Labels) -> None:
    # Order numbers below `size` by their means; a stable merge sort.
    for i in range(size):
        order[i] = i
    width = 1
    while width < size:
        for first in range(0, size, 2 * width):
            middle, end = min(first + width, size), min(first + 2 * width, size)
            i, j = first, middle
            for k in range(first, end):
                if i < middle and (j >= end or means[order[i]] <= means[order[j]]):
                    room[k] = order[i]
                    i += 1
                else:
                    room[k] = order[j]
                    j += 1
        for k in range(size):
            order[k] = room[k]
        width *= 2


@kernel
def _cut(order: Labels, weights: Labels, size: int, most: int, labels: Labels) -> int:
    # Groups of about equal weight, of contexts that are next to each other in `order`.
    total, before, group, last = 1, 0, -1, -1
    for i in range(size):
        total += weights[i]
    for i in range(size):
        place = before * most // total
        if place != last:
            group, last = group + 1, place
        labels[order[i]] = group
        before += weights[order[i]]
    return group + 1


@kernel
def _wide(totals: Labels) -> int:
    # The number of tokens up to the last one that occurs.
    wide = totals.size
    while wide > 1 and totals[wide - 1] == 0:
        wide -= 1
    return wide


@kernel
def _sum(listing: Listing, size: int, labels: Labels, count: int, sums: Labels) -> int:
    # Add up the counts of each of `count` groups; return how many tokens are looked at.
    _, starts, tokens, numbers, _, _, totals = listing
    wide = _wide(totals)
    for k in range(count):
        for token in range(wide):
            sums[k, token] = 0
    for i in range(size):
        for at in range(starts[i], starts[i + 1]):
            sums[labels[i], tokens[at]] += np.int64(numbers[at])
    return wide


@kernel
def _times_log(number: int, products: Costs) -> float:
    # `number * log2(number)`, which is looked up if it is small.
    return float(products[number] if number < products.size else number * np.log2(np.float64(number)))


@kernel
def _bits(groups: tuple[Labels, Labels], wide: int, i: int, j: int, prices: Prices, products: Costs) -> float:
    # The bits of two groups with one table, or of one group if both are the same.
    sums, sizes = groups
    total, size, parts, used = sizes[i] - sizes[i], sizes[i] + (sizes[j] if i != j else 0), 0.0, 0
    for token in range(wide):
        count = sums[i, token] + (sums[j, token] if i != j else 0)
        if count > 0:
            total += count
            used += 1
            parts += _times_log(count, products)
    tokens = _times_log(total, products) - parts
    return float(tokens + used * prices[0] - _times_log(size, products) * prices[1])


# A literal number as an argument of a kernel would be a type of its own, for which numba compiles the kernel
# once more: hence `first`.


@kernel
def _join(rooms: Rooms, count: int, wide: int, prices: Prices, products: Costs) -> int:
    # Join neighbours, those that lose least first, until one is left; return the cheapest number minus one.
    # `gone` is set to the group that its neighbour takes with each number.
    sums, links, bits = rooms[2], rooms[3], rooms[4]
    sizes, after, gone = links[0], links[1], links[2]
    own, losses, totals = bits[0], bits[1], bits[2]
    groups, total, unknown = (sums, sizes), 0.0, -np.inf
    first: Any = np.int64(0)
    for k in range(count):
        own[k] = _bits(groups, wide, k, k, prices, products)
        total += own[k]
        losses[k] = unknown
        after[k] = k + 1
    cheapest, least = 0, np.inf
    for left in range(count, 0, -1):
        totals[left - 1] = total + left * prices[2]
        cost = totals[left - 1] * (1.0 + prices[3] * np.log2(float(left)))
        if cost <= least:
            cheapest, least = left - 1, cost
        k, best, before, last, loss = first, first, first, first, np.inf
        while after[k] < count:
            if losses[k] == unknown:
                losses[k] = _bits(groups, wide, k, after[k], prices, products) - own[k] - own[after[k]]
            if losses[k] < loss:
                best, before, loss = k, last, losses[k]
            last = k
            k = after[k]
        if left > 1:
            other = after[best]
            for token in range(wide):
                sums[best, token] += sums[other, token]
            sizes[best] += sizes[other]
            own[best] += own[other] + loss
            after[best] = after[other]
            losses[best] = losses[before] = unknown
            total += loss
            gone[left - 1] = other
    return cheapest


@kernel
def _joined(
    listing: Listing, size: int, prices: Prices, products: Costs, rooms: Rooms, labels: Labels
) -> float:
    # Group contexts by like means, and join neighbours if it pays; return the bits of all tokens, tables
    # and groups.  Labels have no gaps.
    order, room, sums, links, bits, _ = rooms
    _sort(listing[5], size, order, room)
    count = _cut(order, listing[4], size, sums.shape[0], labels)
    wide = _sum(listing, size, labels, count, sums)
    for k in range(count):
        links[0, k] = 0
    for i in range(size):
        links[0, labels[i]] += 1
    cheapest = _join(rooms, count, wide, prices, products)
    for k in range(count):
        links[0, k] = 1
    for k in range(cheapest + 1, count):
        links[0, links[2, k]] = 0
    _renumber(labels, size, links[0], count)
    return float(bits[2, cheapest] + prices[1] * size * np.log2(np.float64(size)))


@kernel
def _renumber(labels: Labels, size: int, is_left: Labels, count: int) -> int:
    # Number the groups that are left, in order; one that is not has the number before it.
    number = -1
    for k in range(count):
        number += is_left[k]
        is_left[k] = number
    for i in range(size):
        labels[i] = is_left[labels[i]]
    return number + 1


@kernel
def _prices(sums: Labels, count: int, wide: int, unseen: float, costs: Costs) -> int:
    # What each token costs in each group, at most `unseen`; return how many frequencies are not zero.
    used = 0
    for k in range(count):
        total = 0
        for token in range(wide):
            total += sums[k, token]
        for token in range(wide):
            number, cost = sums[k, token], unseen
            if number > 0:
                cost = -np.log2(number / total)
                used += 1
            costs[token, k] = cost if cost < unseen else unseen
    return used


@kernel
def _assign(listing: Listing, size: int, count: int, costs: Costs, sums: Costs, labels: Labels) -> float:
    # One accumulator for each cluster makes the order of additions the same on every machine.
    _, starts, tokens, numbers, _, _, _ = listing
    total = 0.0
    for i in range(size):
        for k in range(count):
            sums[k] = 0.0
        for at in range(starts[i], starts[i + 1]):
            number, prices = numbers[at], costs[np.uint64(tokens[at])]
            for k in range(count):
                sums[k] += number * prices[k]
        best, least = 0, sums[0]
        for k in range(1, count):
            if sums[k] < least:
                best, least = k, sums[k]
        labels[i] = best
        total += least
    return total


@kernel
def _improved(
    listing: Listing, size: int, unseen: float, rooms: Rooms, labels: Labels, found: Labels
) -> float:
    # Assign each context to the group whose table codes it with the fewest bits, which are returned; a token
    # that its group does not have costs `unseen` bits.  `found` are the numbers of groups, and of frequencies
    # of the groups before that are not zero.
    _, _, sums, links, bits, costs = rooms
    count = 0 * size  # for a 0 as it is the calls below would be compiled anew
    for i in range(size):
        count = max(count, labels[i] + 1)
    wide = _sum(listing, size, labels, count, sums)
    found[1] = _prices(sums, count, wide, unseen, costs)
    total = _assign(listing, size, count, costs, bits[0], labels)
    for k in range(count):
        links[0, k] = 0
    for i in range(size):
        links[0, labels[i]] = 1
    found[0] = _renumber(labels, size, links[0], count)
    return total
