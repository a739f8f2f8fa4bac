"""Ordered parallel work on a thread pool with limited memory."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class WhileInside(Generic[T]):
    """A reentrant context, of any threads, in which something of the process has a value.

    What it was before is put back when the last one leaves.
    """

    def __init__(self, read: Callable[[], T], write: Callable[[T], object], value: T) -> None:
        self._read, self._write, self._value = read, write, value
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = self._read()
                self._write(self._value)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._write(self._before)


WORTH_SPREADING: Final = 64 << 20
"""Raw bytes from which on other processes are asked; threads are done with less before they have begun."""
_MOST: Final[ContextVar[int]] = ContextVar("most threads", default=8)


def workers() -> int:
    """Return the number of threads for chunks: one for each core that this process may use, at most 8."""
    return min(_MOST.get(), len(os.sched_getaffinity(0)))


def is_worth_spreading(nbytes: int) -> bool:
    """Return whether other processes are asked to do work on ``nbytes`` raw bytes."""
    return nbytes >= WORTH_SPREADING


@contextlib.contextmanager
def limited(most: int) -> Iterator[None]:
    """Begin no more than ``most`` threads for chunks in this thread: others keep the cores busy."""
    token = _MOST.set(most)
    try:
        yield
    finally:
        _MOST.reset(token)


def submit(pool: Executor, work: Callable[..., R], *args: T) -> Future[R]:
    """Let ``pool`` call ``work``; it is called at once where a program that ends takes no more work."""
    try:
        return pool.submit(work, *args)
    except RuntimeError:
        done: Future[R] = Future()
        try:
            done.set_result(work(*args))
        except Exception as error:  # the caller reads it from the future
            done.set_exception(error)
        return done


class Pool:
    """Threads for the chunks of one piece of work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(workers())

    def ordered(
        self,
        work: Callable[[T], R],
        items: Iterable[T],
        weigh: Callable[[T], int] = lambda _: 0,
        budget: int = 0,
    ) -> Generator[R, None, None]:
        """Yield ``map(work, items)`` from the threads, at most two items a thread in flight.

        Items in flight weigh at most ``budget`` together, unless one alone is heavier.
        """
        most, held = 2 * workers(), 0
        waiting: deque[tuple[Future[R], int]] = deque()
        try:
            for item in items:
                weight = weigh(item)
                while waiting and (len(waiting) > most or weight + held > budget > 0):
                    future, lighter = waiting.popleft()
                    held -= lighter
                    yield future.result()
                waiting.append((submit(self._threads, work, item), weight))
                held += weight
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown()


def ordered(
    work: Callable[[T], R], items: Iterable[T], weigh: Callable[[T], int] = lambda _: 0, budget: int = 0
) -> Generator[R, None, None]:
    """Do as :meth:`Pool.ordered`, on threads of its own."""
    with Pool() as pool:
        yield from pool.ordered(work, items, weigh, budget)
