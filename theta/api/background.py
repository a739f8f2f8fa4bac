"""Saves that happen behind the program: one at a time, the newest of those that wait."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread

from theta.errors import UsageError
from theta.porcelain.stage.saving import SaveResult

Work = Callable[[], SaveResult]
"""Saves."""


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
    error of a save that nobody looked at is raised by the next call.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: dict[str, tuple[Work, Saving]] = {}
        self._failed: Saving | None = None
        self._thread: Thread | None = None
        self._closed = False

    def put(self, ref: str, work: Work) -> Saving:
        """Let ``work`` save to ``ref`` as soon as the save before it is done."""
        self.drop(ref)
        future = Saving()
        with self._lock:
            self.check()
            if self._closed:
                raise UsageError("the repository was closed", hint="theta.open opens it anew")
            self._waiting[ref] = work, future
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

    def check(self) -> None:
        """Raise the error of a save that failed since the last call."""
        failed, self._failed = self._failed, None
        if failed is not None and not failed.told:
            failed.result()

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
                work, future = self._waiting.pop(ref)
            if future.set_running_or_notify_cancel():
                self._run(work, future)

    def _run(self, work: Work, future: Saving) -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # the thread has no caller that it could be raised to
            future.set_exception(error)
            self._failed = future
