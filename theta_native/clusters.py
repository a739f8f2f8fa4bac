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


def assign(counts: Counts, costs: Costs) -> tuple[Labels, float]:
    """The cheapest cluster of each context, and the total cost.

    ``costs`` has the shape ``(tokens, clusters)``: bits of a token in a cluster.
    """
    labels = np.empty(counts.shape[0], np.int64)
    return labels, float(_assign(counts, costs, labels))


def sum_groups(counts: Counts, labels: Labels, clusters: int) -> NDArray[np.int64]:
    """The counts of all contexts of each cluster, shape ``(clusters, tokens)``."""
    sums = np.zeros((clusters, counts.shape[1]), np.int64)
    _sum_groups(counts, labels, sums)
    return sums
