"""Clustering contexts with similar distributions of tokens, so that few tables serve many contexts."""

from __future__ import annotations

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


class Listed:
    """The nonzero counts of each context that occurs.

    Attributes:
        occurring: the numbers of these contexts.
        weights: the total count of each.
        means: the mean token of each.
    """

    def __init__(self, counts: Counts) -> None:
        used = np.empty(counts.shape[0], np.int64)
        _count(counts, used)
        self.occurring = np.flatnonzero(used)
        self.alphabet = counts.shape[1]
        self._starts = np.concatenate([[0], np.cumsum(used[self.occurring])])
        total = int(self._starts[-1])
        # One more place each: the last number of a row is followed by nothing.
        self._tokens, self._numbers = np.empty(total + 1, np.uint16), np.empty(total + 1)
        _listed(counts, self.occurring, self._starts, self._tokens, self._numbers)
        self.weights, self.means = np.empty(self.occurring.size, np.int64), np.empty(self.occurring.size)
        _weigh(self._starts, self._tokens, self._numbers, self.weights, self.means)

    def improve(self, labels: Labels, rounds: int, unseen: float) -> tuple[Labels, float, int]:
        """Assign each context ``rounds`` times to the group whose table codes it with the fewest bits.

        Args:
            labels: the initial group of each context, without gaps.
            rounds: number of assignments.
            unseen: the cost in bits of a token that its group does not have, and the largest of any.

        Returns:
            The labels, without gaps; the bits of all tokens if each context uses the best table of these
            groups; and the number of nonzero frequencies.
        """
        labels = labels.copy()
        for _ in range(rounds):
            self._assign(self.sums(labels), unseen, labels)
            _close_gaps(labels)
        sums = self.sums(labels)
        return labels, self._assign(sums, unseen, np.empty_like(labels)), int(np.count_nonzero(sums))

    def _assign(self, sums: NDArray[np.int64], unseen: float, labels: Labels) -> float:
        """Set ``labels`` to the best of the groups with these ``sums`` for each context; return the bits."""
        costs = np.empty(sums.shape[::-1])
        _costs(sums, unseen, costs)
        best = np.empty(len(sums))
        return float(_assign(self._starts, self._tokens, self._numbers, costs, best, labels))

    def regrouped(self, groups: Labels, names: NDArray[np.uint16], alphabet: int) -> Counts:
        """The counts, where context ``c`` is in group ``groups[c]`` and token ``t`` is called ``names[t]``.

        ``groups`` rise to the last one; the shape of the result is ``(groups, alphabet)``.
        """
        counts = np.zeros((int(groups[-1]) + 1, alphabet), np.uint32)
        _regroup((self.occurring, self._starts, self._tokens, self._numbers), groups, names, counts)
        return counts

    def sums(self, labels: Labels) -> NDArray[np.int64]:
        """Return the summed counts of each group, shape ``(groups, tokens)``."""
        out = np.zeros((int(labels.max()) + 1, self.alphabet), np.int64)
        _sum_listed(self._starts, self._tokens, self._numbers, labels, out)
        return out


def _close_gaps(labels: Labels) -> None:
    """Renumber the groups without empty ones, in the same order."""
    is_used = np.zeros(int(labels.max()) + 1, np.int64)
    is_used[labels] = 1
    labels[:] = (np.cumsum(is_used) - 1)[labels]
