"""How far long work is, in one line of text that is not written too often."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from theta.units import human

_AFTER: Final = 0.5
"""Seconds that work takes before progress is shown."""
_EVERY: Final = 0.1
"""Seconds between two states of the line."""


class ProgressLine:
    """Shows steps on one line of the terminal by ``write``, which writes over the last one."""

    def __init__(self, what: str, write: Callable[[str], None]) -> None:
        self._what, self._of, self._write = what, "", write
        self._began = self._since = time.monotonic()
        self._shown, self._done, self._total, self._compiled = 0.0, 0, 0, 0
        self._last, self._flowed, self._waits = self._since, 0, True

    def step(self, verb: str, total: int, of: str = "") -> None:
        """Begin a step of ``total`` bytes."""
        self._what, self._of = verb, of or self._of
        self._since, self._done, self._total = time.monotonic(), 0, total
        self._last, self._flowed, self._waits = self._since, 0, True
        self.show(step_text(verb, self._of, 0, total, 0.0))

    def __call__(self, nbytes: int) -> None:
        """Note that ``nbytes`` more are done."""
        now = time.monotonic()
        if self._waits:  # until now bytes were waited for, or kernels: that says nothing of the speed
            self._since += now - self._last
            self._waits = False
        else:
            self._flowed += nbytes
        self._last, self._done = now, self._done + nbytes
        seconds = now - self._since
        self.show(step_text(self._what, self._of, self._done, self._total, seconds, self._flowed))

    def compiling(self) -> None:
        """Note that a thread compiles a kernel, for which all others wait."""
        self._compiled += 1
        self._waits = True
        self.show(f"compiling kernels, once after an installation: {self._compiled}")

    def show(self, text: str) -> None:
        """Show ``text``, unless it is too early for that."""
        now = time.monotonic()
        if now - self._began > _AFTER and now - self._shown > _EVERY:
            self._shown = now
            self._write(text)


def step_text(verb: str, of: str, done: int, total: int, seconds: float, flowed: int | None = None) -> str:
    """Return the state of a step: ``hashing a.safetensors: 52 % of 793 MB, 67.1 MB/s, 6 s left``.

    ``flowed``: so many of the bytes were done in these ``seconds``; all where it is None.
    """
    name = f"{verb} {of}".strip()
    if not total:
        return name
    done = min(done, total)
    parts = [f"{name}: {100 * done // total} % of {human(total)}"]
    flowed = done if flowed is None else flowed
    if flowed and seconds > 0:
        parts += [f"{human(flowed / seconds)}/s", f"{duration((total - done) * seconds / flowed)} left"]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time for people, in its two largest units."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
