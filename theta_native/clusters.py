"""Grouping of contexts whose tokens are distributed alike, so that few tables serve many contexts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Counts = NDArray[np.uint32]
"""Shape ``(contexts, tokens)``: how often each token occurs in each context."""
Labels = NDArray[np.int64]
Costs = NDArray[np.float64]


@kernel
def _assign(counts: Counts, costs: Costs, labels: Labels) -> float:
    # One accumulator a cluster: the order of additions is fixed, whatever the machine.
    total = 0.0
    sums = np.empty(costs.shape[1])
    for i in range(counts.shape[0]):
        sums[:] = 0.0
        for token in range(counts.shape[1]):
            if counts[i, token]:
                count = float(counts[i, token])
                for k in range(costs.shape[1]):
                    sums[k] += count * costs[token, k]
        labels[i] = np.argmin(sums)
        total += sums[labels[i]]
    return total


@kernel
def _sum_groups(counts: Counts, labels: Labels, sums: NDArray[np.int64]) -> None:
    for i in range(counts.shape[0]):
        for token in range(counts.shape[1]):
            sums[labels[i], token] += counts[i, token]


@kernel
def _costs(sums: NDArray[np.int64], unseen: float, costs: Costs) -> None:
    for k in range(sums.shape[0]):
        total = 0
        for token in range(sums.shape[1]):
            total += sums[k, token]
        for token in range(sums.shape[1]):
            count = sums[k, token]
            costs[token, k] = min(-np.log2(count / total), unseen) if count else unseen


@kernel
def _close_gaps(labels: Labels, count: int) -> int:
    # Clusters that nothing is in any more lose their numbers; the others keep their order.
    number = np.zeros(count, np.int64)
    for i in range(labels.size):
        number[labels[i]] = 1
    left = 0
    for k in range(count):
        if number[k]:
            number[k] = left
            left += 1
    for i in range(labels.size):
        labels[i] = number[labels[i]]
    return left


@kernel
def _improve(
    counts: Counts, labels: Labels, count: int, rounds: int, unseen: float
) -> tuple[float, int, int]:
    bits, used = 0.0, 0
    for turn in range(rounds + 1):
        sums = np.zeros((count, counts.shape[1]), np.int64)
        _sum_groups(counts, labels, sums)
        costs = np.empty((counts.shape[1], count))
        _costs(sums, unseen, costs)
        if turn < rounds:
            _assign(counts, costs, labels)
            count = _close_gaps(labels, count)
        else:
            bits = _assign(counts, costs, np.empty_like(labels))
            used = int(np.count_nonzero(sums))
    return bits, used, count


def improve(counts: Counts, labels: Labels, rounds: int, unseen: float) -> tuple[Labels, float, int]:
    """Group contexts ``rounds`` times anew, each time by the tables of the groups so far.

    Args:
        counts: how often each token occurs in each context; no context without any.
        labels: the group of each context to begin with, without gaps.
        rounds: how often.
        unseen: the most bits that a token costs, also one that its group does not have.

    Returns:
        The labels, without gaps; the bits of all tokens where each context takes the best table of these
        groups; and the number of frequencies that are not zero.
    """
    labels = labels.copy()
    bits, used, _ = _improve(counts, labels, int(labels.max()) + 1, rounds, unseen)
    return labels, float(bits), int(used)


def sum_groups(counts: Counts, labels: Labels, clusters: int) -> NDArray[np.int64]:
    """The counts of all contexts of each cluster, shape ``(clusters, tokens)``."""
    sums = np.zeros((clusters, counts.shape[1]), np.int64)
    _sum_groups(counts, labels, sums)
    return sums
