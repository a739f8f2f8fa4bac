"""A sliding window of work on a thread pool: results in order, memory bounded by the window."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def workers() -> int:
    """Threads that work on chunks: one a core, at most 8."""
    return min(8, os.cpu_count() or 1)


def ordered(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map(work, items)`` on threads, at most two items a thread in flight."""
    count = workers()
    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
