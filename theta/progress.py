"""How long work tells how far it is: in steps, each of so many bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

fetches: Callable[[], AbstractContextManager[Callable[[str], None] | None]] = contextlib.nullcontext
"""How fetches of what a partial clone lacks are shown: what takes git's lines during one, if anything."""


class Progress(Protocol):
    """Whoever shows progress; work calls it from the thread that began the step."""

    def step(self, verb: str, total: int, of: str = "") -> None:
        """A step of ``total`` bytes begins; ``of`` names its file, which stays while steps name none."""
        ...

    def __call__(self, nbytes: int) -> None:
        """``nbytes`` more of the step are done."""
        ...


def begin(progress: Progress | None, verb: str, total: int, of: str = "") -> None:
    """Tell ``progress``, if there is one, that a step begins."""
    if progress is not None:
        progress.step(verb, total, of)
