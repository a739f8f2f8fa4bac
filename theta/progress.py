"""The interface for showing the progress of long work, in steps of a number of bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

fetches: Callable[[], AbstractContextManager[Callable[[str], None] | None]] = contextlib.nullcontext
"""Returns a context manager of the function that shows git's lines while a partial clone fetches, or None."""


class Progress(Protocol):
    """Shows progress; it is called on the thread that started the step."""

    def step(self, verb: str, total: int, of: str = "") -> None:
        """Start a step of ``total`` bytes on file ``of``, by default that of the step before."""
        ...

    def __call__(self, nbytes: int) -> None:
        """Advance the step by ``nbytes``."""
        ...


def begin(progress: Progress | None, verb: str, total: int, of: str = "") -> None:
    """Start a step of ``progress``, if it is given."""
    if progress is not None:
        progress.step(verb, total, of)
