"""Ordered parallel work on a thread pool with limited memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def workers() -> int:
    """Return the number of threads for chunks: one for each core, at most 8."""
    return min(8, os.cpu_count() or 1)


def ordered(
    work: Callable[[T], R], items: Iterable[T], weigh: Callable[[T], int] = lambda _: 0, budget: int = 0
) -> Generator[R, None, None]:
    """Yield ``work(item)`` in order, computed on threads, with at most two items for each in flight.

    The weights of the items in flight add up to at most ``budget``, unless one item alone is heavier.
    """
    count = workers()
    with ThreadPoolExecutor(count) as pool:
        waiting: deque[tuple[Future[R], int]] = deque()
        try:
            for item in items:
                weight = weigh(item)
                while waiting and (
                    len(waiting) > 2 * count or weight + sum(w for _, w in waiting) > budget > 0
                ):
                    yield waiting.popleft()[0].result()
                waiting.append((pool.submit(work, item), weight))
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()
