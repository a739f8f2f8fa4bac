"""When a run saves a step, and which steps it keeps."""

from __future__ import annotations

import operator
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol, TypeVar

from theta.errors import NotFoundError, UsageError
from theta.porcelain.stage import run_steps
from theta.porcelain.stage.run_steps import RunStep

P = TypeVar("P")


class When(Protocol):
    """Says whether a step is to be saved."""

    def is_due(self, step: int, /) -> bool:
        """Return whether step number ``step`` is to be saved; it is asked once a step."""
        ...


class Keep(Protocol):
    """Chooses the steps that stay."""

    def kept(self, found: Sequence[RunStep], /) -> set[str]:
        """Return the commits to keep of ``found``, the first one first."""
        ...


class _Joined:
    """Policies joined by ``|``: what one of them wants happens."""

    def __or__(self, other: Any) -> Any:
        return Either((self, other))


@dataclass(frozen=True)
class Either(_Joined):
    """Several policies, of which one is enough."""

    parts: tuple[Any, ...]

    def is_due(self, step: int, /) -> bool:
        """Return whether one of them wants the step; all are asked."""
        asked = [part.is_due(step) for part in self.parts]
        return any(asked)

    def kept(self, found: Sequence[RunStep], /) -> set[str]:
        """Return what one of them keeps."""
        return set().union(*(part.kept(found) for part in self.parts))


@dataclass(frozen=True)
class steps(_Joined):  # noqa: N801 - read as theta.steps(500)
    """Every step whose number ``every`` divides: to save, or to keep."""

    every: int

    def __post_init__(self) -> None:
        _count("steps", self.every)

    def is_due(self, step: int, /) -> bool:
        """Return whether it is such a step."""
        return step % self.every == 0

    def kept(self, found: Sequence[RunStep], /) -> set[str]:
        """Return those steps."""
        return {item.commit for item in found if item.step is not None and self.is_due(item.step)}


@dataclass
class seconds(_Joined):  # noqa: N801 - read as theta.seconds(900)
    """The first step that is ``every`` seconds or more after the last one saved so."""

    every: float
    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        _positive("seconds", self.every)
        self._last = self.clock()

    def is_due(self, _step: int, /) -> bool:
        """Return whether so much time has passed."""
        now = self.clock()
        if now - self._last < self.every:
            return False
        self._last = now
        return True


class preempted(_Joined):  # noqa: N801 - read as theta.preempted()
    """The first step after a signal that ends the process soon: SIGTERM, which clusters send.

    The signal does not end the process by itself, until the run is closed; a handler that the program has
    for it is called too.  The loop asks :attr:`~theta.Run.preempted`.  Only the main thread of a program can
    say this.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise UsageError("signals come to the main thread only", hint="make the policy there")
        self._came = threading.Event()
        self._number, self._before, self._is_released = number, signal.getsignal(number), False
        self.is_served = False
        """Whether a step was saved since the signal came."""
        signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._came.set()
        if self._is_released and self._before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif callable(self._before) and (self._is_released or self._before is not signal.default_int_handler):
            self._before(number, frame)

    def serve(self) -> bool:
        """Note that a step is saved; return whether that is the first since the signal came."""
        came = self._came.is_set()  # read once: a signal may come between two looks
        due = came and not self.is_served
        self.is_served = came
        return due

    def is_due(self, _step: int, /) -> bool:
        """Return whether the signal came since the last question."""
        return self.serve()

    def release(self) -> None:
        """Give the signal back to who had it before.

        Where somebody else took it since, or in another thread than the main one, this policy stays, and
        does with a signal what would be done without it.
        """
        self._is_released = True
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(self._number) == self._take:
            signal.signal(self._number, self._before if self._before is not None else signal.SIG_DFL)


@dataclass(frozen=True)
class last(_Joined):  # noqa: N801 - read as theta.last(3)
    """The newest ``count`` steps."""

    count: int

    def __post_init__(self) -> None:
        _count("last", self.count)

    def kept(self, found: Sequence[RunStep], /) -> set[str]:
        """Return those steps."""
        return {item.commit for item in found[-self.count :]}


@dataclass(frozen=True)
class best(_Joined):  # noqa: N801 - read as theta.best("eval_loss", 2)
    """The ``count`` steps with the lowest value of ``metric``, or the highest; the earlier of equal ones."""

    metric: str
    count: int = 1
    highest: bool = False

    def __post_init__(self) -> None:
        if type(self.metric) is not str or not self.metric:
            raise UsageError(f"theta.best({self.metric!r}): a metric is named by text")
        _count("best", self.count)

    def kept(self, found: Sequence[RunStep], /) -> set[str]:
        """Return those steps; all as long as none tells the metric."""
        try:
            chosen = run_steps.ranked(found, self.metric, highest=self.highest)[: self.count]
        except NotFoundError:
            chosen = list(found)
        return {item.commit for item in chosen}


def parts_of(policy: Any, kind: type[P]) -> list[P]:
    """Return the policies of ``kind`` that ``policy`` has."""
    if isinstance(policy, Either):
        return [found for part in policy.parts for found in parts_of(part, kind)]
    return [policy] if isinstance(policy, kind) else []


def require(policy: Any, way: str, option: str, example: str) -> None:
    """Raise :class:`UsageError` unless ``policy``, and each one joined to it, has method ``way``."""
    for part in policy.parts if isinstance(policy, Either) else ():
        require(part, way, option, example)
    if isinstance(policy, type) or not hasattr(policy, way):
        raise UsageError(f"{option} cannot be {policy!r}", hint=f"{option}={example}")


def _count(name: str, number: int) -> None:
    try:
        operator.index(number)
    except TypeError as error:
        raise UsageError(f"theta.{name}({number!r}): the number must be a whole one") from error
    _positive(name, number)


def _positive(name: str, number: float) -> None:
    try:
        if number > 0:
            return
    except TypeError as error:
        raise UsageError(f"theta.{name}({number!r}) takes a number") from error
    raise UsageError(f"theta.{name}({number!r}): the number must be above 0")
