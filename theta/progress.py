"""How long work tells how far it is: in steps, each of so many bytes."""

from __future__ import annotations

from typing import Protocol


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
