"""Saves that happen behind the program: one at a time, the newest of those that wait."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Final

from theta.errors import UsageError
from theta.porcelain.stage.saving import SaveResult

Work = Callable[[], SaveResult]
"""Saves."""
_LONGEST_PAUSE: Final = 2.0
_LOOK: Final = 0.002
"""Seconds that :meth:`Background.pause` takes at most, and that are between two looks."""


def _never() -> bool:
    return False


class Saving(Future[SaveResult]):
    """The future of a save; it knows whether its error was raised to somebody."""

    told = False

    def result(self, timeout: float | None = None) -> SaveResult:
        """Return the commit, when it is made."""
        try:
            return super().result(timeout)
        finally:
            self.told = self.done()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, or None when the commit is made."""
        try:
            return super().exception(timeout)
        finally:
            self.told = self.done()


class Background:
    """Saves on a thread of its own.

    A save that waits is to be dropped when a newer one for the same ref comes; its future is cancelled.  The
    error of a save that nobody looked at is raised by the next call, or told when the program ends.
    """

    def __init__(self) -> None:
        self._failed: list[Saving] = []
        self._closed = False
        self._begin()
        weakref.finalize(self, _raise, self._failed)
        _ALL.add(self)

    def _begin(self) -> None:
        """Begin with no thread and nothing that waits."""
        self._lock = Lock()
        self._waiting: dict[str, tuple[Work, Saving, Callable[[], bool]]] = {}
        self._is_large: Callable[[], bool] = _never
        self._thread: Thread | None = None

    def put(self, ref: str, work: Work, is_large: Callable[[], bool] = _never) -> Saving:
        """Do as :meth:`add`, and raise what :meth:`check` does when it is sure that ``work`` follows."""
        future = self.add(ref, work, is_large)
        self.check()
        return future

    def add(self, ref: str, work: Work, is_large: Callable[[], bool] = _never) -> Saving:
        """Let ``work`` save to ``ref`` as soon as the save before it is done.

        While ``is_large()``, it has given back too little memory for another save to be whole.
        """
        future = Saving()
        with self._lock:
            if self._closed:
                raise UsageError("the repository was closed", hint="theta.open opens it anew")
            older = self._waiting.pop(ref, None)
            self._waiting[ref] = work, future, is_large
            if older is not None:
                older[1].cancel()
            if self._thread is None:
                self._thread = Thread(target=self._work, name="theta save")
                self._thread.start()
        return future

    def drop(self, ref: str) -> None:
        """Let go of the save to ``ref`` that waits, if any: a newer one comes."""
        with self._lock:
            dropped = self._waiting.pop(ref, None)
        if dropped is not None:
            dropped[1].cancel()

    def pause(self) -> None:
        """Wait while the save that is being stored has hardly given memory back, for a moment at most."""
        end = time.monotonic() + _LONGEST_PAUSE
        while self._is_large() and time.monotonic() < end:
            time.sleep(_LOOK)

    def check(self) -> None:
        """Raise the error of a save that failed since the last call."""
        _raise(self._failed)

    def wait(self) -> None:
        """Wait until all is stored; raises the error of a save that failed."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        self.check()

    def close(self) -> None:
        """Wait as :meth:`wait` does, and take no more saves."""
        with self._lock:
            self._closed = True
        self.wait()

    def _work(self) -> None:
        """Store what waits until nothing does."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                ref = next(iter(self._waiting))
                work, future, self._is_large = self._waiting.pop(ref)
            if future.set_running_or_notify_cancel():
                self._run(work, future)
            self._is_large = _never

    def _run(self, work: Work, future: Saving) -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # the thread has no caller that it could be raised to
            future.set_exception(error)
            self._failed[:] = [future]


_ALL: Final[weakref.WeakSet[Background]] = weakref.WeakSet()


def _raise(failed: list[Saving]) -> None:
    """Forget the save that failed; raise its error unless somebody saw it.  Several threads may do so."""
    try:
        future = failed.pop()
    except IndexError:
        return
    if not future.told:
        future.result()


def _forget() -> None:
    """Leave the saves of the process that was forked to that process: their thread is not in this one."""
    for background in list(_ALL):
        background._begin()
        background._failed.clear()


os.register_at_fork(after_in_child=_forget)
