"""Pushes of a run behind the program: one at a time, of what the run is as each begins.

A step is stored whether or not the remote is slow: a job that is to end has seconds for that.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread

from theta.git.run import GitFailedError
from theta.porcelain.replicas.pushed_runs import PushedRun
from theta.porcelain.workspace.session import Session


class Pushes:
    """Pushes ``remote``; ``failed`` is called where it cannot be reached, or takes no push."""

    def __init__(
        self, remote: PushedRun, opened: Callable[[], Session], failed: Callable[[GitFailedError], None]
    ) -> None:
        self.remote = remote
        self._opened, self._failed = opened, failed
        self._lock = Lock()
        self._is_wanted = False
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Push as soon as the push before is done."""
        with self._lock:
            self._is_wanted = True
            if self._thread is None or not self._thread.is_alive():  # that of a forked process is not here
                self._thread = Thread(target=self._work, name="theta push")
                self._thread.start()

    def check(self) -> None:
        """Raise the error of a push that was refused since the last call."""
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until nothing is being pushed; raises as :meth:`check` does."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        self.check()

    def now(self) -> None:
        """Push in this thread, and raise what goes wrong."""
        self.wait()
        self.remote.push(self._opened())

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._is_wanted:
                    self._thread = None
                    return
                self._is_wanted = False
            try:
                self.remote.push(self._opened())
            except GitFailedError as error:
                self._failed(error)
            except BaseException as error:  # the thread has no caller that it could be raised to
                with self._lock:
                    self._error = error
