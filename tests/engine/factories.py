"""Executors that tests name as ``tests.engine.factories:...``; workers import this module too."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

_made = 0


class Asked(ThreadPoolExecutor):
    """Threads that note what they are asked for, and the bytes that would pass between processes."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.asked: list[object] = []
        self.parts: list[Any] = []
        self.passed = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Note ``fn``, and call it with what comes out of a pickle."""
        self.asked.append(fn)
        self.parts += args
        sent = pickle.dumps((fn, args))
        self.passed += len(sent)
        future = super().submit(fn, *pickle.loads(sent)[1], **kwargs)
        future.add_done_callback(self._note)
        return future

    def _note(self, future: Future[Any]) -> None:
        self.passed += len(pickle.dumps(future.result()))


last = Asked(1)
"""The executor of :func:`asked` that was made last."""


def asked() -> Executor:
    """Return threads that note what they are asked for."""
    global last
    last = Asked(2)
    return last


def threads() -> Executor:
    """Return an executor in this process: parts are pickled by no one, but cut and told as for others."""
    return ThreadPoolExecutor(2)


def nothing() -> object:
    """Return what is no executor."""
    return object()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying(ProcessPoolExecutor):
    """Processes, of which the one that gets the second part is killed by the system."""

    _submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let a worker die in place of the second part."""
        self._submitted += 1
        return super().submit(_die) if self._submitted == 2 else super().submit(fn, *args, **kwargs)


def dying_once() -> Executor:
    """Return an executor that dies, and the next time one that does not."""
    global _made
    _made += 1
    context = get_context("spawn")
    return Dying(2, context) if _made == 1 else ProcessPoolExecutor(2, context)


def dying_always() -> Executor:
    """Return an executor that dies each time."""
    return Dying(1, get_context("spawn"))
