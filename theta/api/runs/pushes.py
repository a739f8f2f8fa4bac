"""Pushes of a run behind the program: one at a time, of what the run is as each begins.

A step is stored whether or not the remote is slow: a job that is to end has seconds for that.
"""

from __future__ import annotations

from collections.abc import Callable

from theta.api.background import Background
from theta.git.run import GitFailedError
from theta.porcelain.replicas.pushed_runs import PushedRun
from theta.porcelain.stage.saving import SaveResult
from theta.porcelain.workspace.session import Session


class Pushes:
    """Pushes ``remote``; ``failed`` is called where it cannot be reached, or takes no push."""

    def __init__(
        self, remote: PushedRun, opened: Callable[[], Session], failed: Callable[[GitFailedError], None]
    ) -> None:
        self.remote = remote
        self._opened, self._failed = opened, failed
        self._background = Background()

    def begin(self, saved: SaveResult) -> None:
        """Push as soon as the push before is done; one that waits gives way to this one."""
        self._background.add(saved.ref, lambda: self._pushed(saved))

    def check(self) -> None:
        """Raise the error of a push that was refused since the last call."""
        self._background.check()

    def wait(self) -> None:
        """Wait until nothing is being pushed; raises as :meth:`check` does."""
        self._background.wait()

    def now(self) -> None:
        """Push in this thread, and raise what goes wrong."""
        self.wait()
        self.remote.push(self._opened())

    def try_now(self) -> None:
        """Push in this thread."""
        self.wait()
        self._try()

    def _pushed(self, saved: SaveResult) -> SaveResult:
        self._try()
        return saved

    def _try(self) -> None:
        try:
            self.remote.push(self._opened())
        except GitFailedError as error:
            self._failed(error)
