"""Parts of one piece of work, run by an executor; those whose worker is lost are run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from typing import Final, Protocol, TypeVar

from theta.engine.executors import Engine
from theta.errors import EngineError, ThetaError
from theta.progress import Progress
from theta.units import never, portions

P = TypeVar("P")
R = TypeVar("R")
LARGEST: Final = 256 << 20
SMALLEST: Final = 32 << 20
PARTS: Final = 32
"""The raw bytes of a part, and the number of parts that a piece of work is cut into between these bounds."""
MOST: Final = 4096
"""The number of tensors of a part."""
_ROUNDS: Final = 3
"""How often a part is begun whose worker is lost."""


class WorkPart(Protocol):
    """Some of the work."""

    @property
    def length(self) -> int:
        """Raw bytes."""
        ...


W = TypeVar("W", bound=WorkPart)


def part_bytes(nbytes: int) -> int:
    """Return the raw bytes of one part of ``nbytes``."""
    return max(SMALLEST, min(LARGEST, nbytes // PARTS))


def cut(
    items: Sequence[P], length: Callable[[P], int], within: int = MOST, begins: Callable[[P], bool] = never
) -> Iterator[list[P]]:
    """Yield ``items`` in parts, in their order: a quarter of a gigabyte each, or less of a small file.

    A part has at most ``within`` items, and an item that ``begins`` one is its first.
    """
    return portions(items, length, part_bytes(sum(map(length, items))), max(within, 1), begins)


def each(
    engine: Engine, work: Callable[[W], R], parts: Sequence[W], progress: Progress | None = None
) -> Iterator[tuple[W, R]]:
    """Yield the parts with what ``work`` returns for them, as they end; the longest are begun first.

    What theta raises in a worker is raised here.  ``work`` and ``parts`` are pickled.  ``progress`` hears
    of each part that the caller has taken.

    Raises:
        theta.errors.EngineError: the workers of some parts were lost three times.
    """
    waiting, lost = sorted(parts, key=lambda part: part.length, reverse=True), list[BaseException]()
    for _ in range(_ROUNDS):
        again: list[W] = []
        for part, future in _round(engine.executor, work, waiting):
            error = future.exception()
            if error is None:
                yield part, future.result()
                if progress is not None:
                    progress(part.length)
                continue
            if isinstance(error, ThetaError):
                raise error
            again.append(part)
            lost.append(error)
        if not again:
            return
        if any(isinstance(error, BrokenExecutor) for error in lost):
            engine.renew()
        waiting = again
    told = f"{len(waiting)} parts were begun {_ROUNDS} times, and their workers were lost: {lost[-1]!r}"
    raise EngineError(told) from lost[-1]


def _round(executor: Executor, work: Callable[[P], R], parts: Sequence[P]) -> Iterator[tuple[P, Future[R]]]:
    """Yield the parts with their futures as these end; those that have not begun are cancelled at the end."""
    futures = {_submitted(executor, work, part): part for part in parts}
    try:
        for future in as_completed(list(futures)):
            yield futures.pop(future), future
    finally:
        for future in futures:
            future.cancel()


def _submitted(executor: Executor, work: Callable[[P], R], part: P) -> Future[R]:
    """Let ``executor`` do ``work``; if it is broken, the future says so."""
    try:
        return executor.submit(work, part)
    except BrokenExecutor as error:
        broken: Future[R] = Future()
        broken.set_exception(error)
        return broken
