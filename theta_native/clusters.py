"""Clustering contexts with similar distributions of tokens, so that few tables serve many contexts."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Counts = NDArray[np.uint32]
"""Counts of each token in each context, shape ``(contexts, tokens)``."""
Labels = NDArray[np.int64]
Costs = NDArray[np.float64]


@kernel
def _count(counts: Counts, used: Labels) -> None:
    # How many tokens each context has: most contexts have few, or none.
    for i in range(counts.shape[0]):
        row, found = counts[i], np.uint32(0)
        for token in range(row.size):
            found += np.uint32(row[token] != 0)
        used[i] = found


@kernel
def _listed(
    counts: Counts, occurring: Labels, starts: Labels, tokens: NDArray[np.uint16], numbers: Costs
) -> None:
    # What is not zero, row by row.
    at = 0
    for i in range(occurring.size):
        row, end = counts[occurring[i]], starts[i + 1]
        token = 0
        while at < end:
            tokens[at] = token
            numbers[at] = float(row[token])
            at += int(row[token] != 0)
            token += 1


@kernel
def _regroup(
    listed: tuple[Labels, Labels, NDArray[np.uint16], Costs],
    groups: Labels,
    names: NDArray[np.uint16],
    counts: Counts,
) -> None:
    occurring, starts, tokens, numbers = listed
    for i in range(occurring.size):
        row = counts[groups[occurring[i]]]
        for at in range(starts[i], starts[i + 1]):
            row[names[tokens[at]]] += np.uint32(numbers[at])


@kernel
def _assign(
    starts: Labels, tokens: NDArray[np.uint16], numbers: Costs, costs: Costs, sums: Costs, labels: Labels
) -> float:
    # One accumulator for each cluster makes the order of additions the same on every machine.
    total = 0.0
    for i in range(labels.size):
        for k in range(sums.size):
            sums[k] = 0.0
        for at in range(starts[i], starts[i + 1]):
            count, token = numbers[at], np.uint64(tokens[at])
            for k in range(sums.size):
                sums[k] += count * costs[token, k]
        best, least = 0, sums[0]
        for k in range(1, sums.size):
            if sums[k] < least:
                best, least = k, sums[k]
        labels[i] = best
        total += least
    return total


@kernel
def _sum_listed(
    starts: Labels, tokens: NDArray[np.uint16], numbers: Costs, labels: Labels, sums: NDArray[np.int64]
) -> None:
    for i in range(labels.size):
        for at in range(starts[i], starts[i + 1]):
            sums[labels[i], tokens[at]] += np.int64(numbers[at])


@kernel
def _costs(sums: NDArray[np.int64], unseen: float, costs: Costs) -> None:
    for k in range(sums.shape[0]):
        total = 0
        for token in range(sums.shape[1]):
            total += sums[k, token]
        for token in range(sums.shape[1]):
            count, cost = sums[k, token], unseen
            if count > 0:
                cost = -np.log2(count / total)
            costs[token, k] = cost if cost < unseen else unseen


@kernel
def _weigh(starts: Labels, tokens: NDArray[np.uint16], numbers: Costs, weights: Labels, means: Costs) -> None:
    for i in range(weights.size):
        weight, total = 0.0, 0.0
        for at in range(starts[i], starts[i + 1]):
            weight += numbers[at]
            total += numbers[at] * tokens[at]
        weights[i], means[i] = np.int64(weight), total / weight


@kernel
def _times_log(number: int, products: Costs) -> float:
    # `number * log2(number)`, which is looked up if it is small.
    return float(products[number] if number < products.size else number * np.log2(np.float64(number)))


@kernel
def _bits(
    groups: tuple[NDArray[np.int64], Labels],
    i: int,
    j: int,
    costs: tuple[float, float, float, float],
    products: Costs,
) -> float:
    # The bits of two groups with one table, or of one group if both are the same.
    sums, sizes = groups
    total, size, parts, used = sizes[i] - sizes[i], sizes[i] + (sizes[j] if i != j else 0), 0.0, 0
    for token in range(sums.shape[1]):
        count = sums[i, token] + (sums[j, token] if i != j else 0)
        if count > 0:
            total += count
            used += 1
            parts += _times_log(count, products)
    tokens = _times_log(total, products) - parts
    return float(tokens + used * costs[0] - _times_log(size, products) * costs[1])


@kernel
def _cut(order: Labels, weights: Labels, most: int, labels: Labels) -> int:
    # Groups of about equal weight, of contexts that are next to each other in `order`.
    total, before, group, last = 1, 0, -1, -1
    for i in range(weights.size):
        total += weights[i]
    for i in range(order.size):
        place = before * most // total
        if place != last:
            group, last = group + 1, place
        labels[order[i]] = group
        before += weights[order[i]]
    return group + 1


# `links` and `bits` are room for three numbers a group.  A literal number as an argument of a kernel would
# be a type of its own, for which numba compiles the kernel once more: hence `first`.


@kernel
def _join(
    sums: NDArray[np.int64],
    labels: Labels,
    costs: tuple[float, float, float, float],
    products: Costs,
    links: Labels,
    bits: Costs,
) -> int:
    # Join neighbours, those that lose least first, until one is left; return the cheapest number minus one.
    # `gone` is set to the group that its neighbour takes with each number.
    sizes, after, gone = links[0], links[1], links[2]
    own, losses, totals = bits[0], bits[1], bits[2]
    groups, total, unknown = (sums, sizes), 0.0, -np.inf
    first: Any = np.int64(0)
    for i in range(labels.size):
        sizes[labels[i]] += 1
    for k in range(sizes.size):
        own[k] = _bits(groups, k, k, costs, products)
        total += own[k]
        losses[k] = unknown
        after[k] = k + 1
    cheapest, least = 0, np.inf
    for left in range(sizes.size, 0, -1):
        totals[left - 1] = total + left * costs[2]
        cost = totals[left - 1] * (1.0 + costs[3] * np.log2(float(left)))
        if cost <= least:
            cheapest, least = left - 1, cost
        k, best, before, last, loss = first, first, first, first, np.inf
        while after[k] < sizes.size:
            if losses[k] == unknown:
                losses[k] = _bits(groups, k, after[k], costs, products) - own[k] - own[after[k]]
            if losses[k] < loss:
                best, before, loss = k, last, losses[k]
            last = k
            k = after[k]
        if left > 1:
            other = after[best]
            for token in range(sums.shape[1]):
                sums[best, token] += sums[other, token]
            sizes[best] += sizes[other]
            own[best] += own[other] + loss
            after[best] = after[other]
            losses[best] = losses[before] = unknown
            total += loss
            gone[left - 1] = other
    return cheapest


@cache
def _products() -> Costs:
    """Return ``n * log2(n)`` of small numbers."""
    numbers = np.arange(1 << 12, dtype=np.float64)
    products: Costs = numbers * np.log2(np.maximum(numbers, 1))
    return products


class Listed:
    """The nonzero counts of each context that occurs.

    Attributes:
        occurring: the numbers of these contexts.
        totals: how often each token occurs, up to the last one that does.
        weights: the total count of each.
        means: the mean token of each.
    """

    def __init__(self, counts: Counts) -> None:
        used = np.empty(counts.shape[0], np.int64)
        _count(counts, used)
        self.occurring = np.flatnonzero(used)
        self._starts = np.concatenate([[0], np.cumsum(used[self.occurring])])
        total = int(self._starts[-1])
        # One more place each: the last number of a row is followed by nothing.
        self._tokens, self._numbers = np.empty(total + 1, np.uint16), np.empty(total + 1)
        _listed(counts, self.occurring, self._starts, self._tokens, self._numbers)
        self._groups: dict[Hashable, tuple[Labels, float]] = {}
        self.totals = np.bincount(self._tokens[:-1], self._numbers[:-1], 1).astype(np.int64)
        self.weights, self.means = np.empty(self.occurring.size, np.int64), np.empty(self.occurring.size)
        _weigh(self._starts, self._tokens, self._numbers, self.weights, self.means)

    def joined(self, most: int, costs: tuple[float, float, float, float]) -> tuple[Labels, float]:
        """Group contexts: at most ``most`` groups with like means, of which neighbours are joined if it pays.

        Args:
            most: the largest number of groups.
            costs: the bits of a frequency of a table, of a bit that tells the group of a context, and of a
                group; and the share of all bits that twice as many groups must save.

        Returns:
            The group of each context, without gaps, and the bits of all tokens, tables and groups.
        """
        found = self._groups.get((most, costs))
        if found is None:
            found = self._groups[most, costs] = self._join(most, costs)
        return found

    def _join(self, most: int, costs: tuple[float, float, float, float]) -> tuple[Labels, float]:
        """Do as :meth:`joined`, anew."""
        order = np.argsort(self.means, kind="stable")
        labels = np.empty(order.size, np.int64)
        count = _cut(order, self.weights, most, labels)
        sums, links, bits = self.sums(labels), np.zeros((3, count), np.int64), np.empty((3, count))
        cheapest = _join(sums, labels, costs, _products(), links, bits)
        is_left = np.ones(count, np.int64)
        is_left[links[2][cheapest + 1 :]] = 0
        total = float(bits[2][cheapest]) + costs[1] * order.size * float(np.log2(order.size))
        return (np.cumsum(is_left) - 1)[labels], total

    def improve(self, labels: Labels, unseen: float) -> tuple[Labels, float, int]:
        """Assign each context to the group whose table codes it with the fewest bits.

        Args:
            labels: the group of each context, without gaps.
            unseen: the cost in bits of a token that its group does not have, and the largest of any.

        Returns:
            The new labels, without gaps; the bits of all tokens by the tables of the groups before; and the
            number of their frequencies that are not zero.
        """
        sums = self.sums(labels)
        costs: Costs = np.empty(sums.shape[::-1])
        best: Costs = np.empty(len(sums))
        _costs(sums, unseen, costs)
        labels = labels.copy()
        bits = float(_assign(self._starts, self._tokens, self._numbers, costs, best, labels))
        _close_gaps(labels)
        return labels, bits, int(np.count_nonzero(sums))

    def regrouped(self, groups: Labels, names: NDArray[np.uint16], alphabet: int) -> Counts:
        """Return the counts, with context ``c`` in group ``groups[c]`` and token ``t`` called ``names[t]``.

        ``groups`` rise to the last one; the shape of the result is ``(groups, alphabet)``.
        """
        counts = np.zeros((int(groups[-1]) + 1, alphabet), np.uint32)
        _regroup((self.occurring, self._starts, self._tokens, self._numbers), groups, names, counts)
        return counts

    def sums(self, labels: Labels) -> NDArray[np.int64]:
        """Return the summed counts of each group, shape ``(groups, tokens)``, for tokens that occur."""
        out = np.zeros((int(labels.max()) + 1, self.totals.size), np.int64)
        _sum_listed(self._starts, self._tokens, self._numbers, labels, out)
        return out


def _close_gaps(labels: Labels) -> None:
    """Renumber the groups without empty ones, in the same order."""
    is_used = np.zeros(int(labels.max()) + 1, np.int64)
    is_used[labels] = 1
    labels[:] = (np.cumsum(is_used) - 1)[labels]
