"""Processes side by side: each runs one campaign for a while, and what it tells goes to the table."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Final

from bench.trust.outcome import Outcome
from bench.trust.table import ROOT

SLICE: Final = 240.0
"""Seconds after which a process makes room for the campaign that is behind most."""
PATIENCE: Final = 900.0
"""Seconds after which a seed counts as one that hangs."""
_MANY: Final = 1 << 40


@dataclass
class Running:
    """A process of a campaign."""

    campaign: str
    seed: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    until: float
    heard: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, campaign: str, seed: int, until: float) -> Running:
        """Start a process at ``seed``."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        command = [sys.executable, "-m", "bench.trust.worker", campaign, str(seed), str(_MANY)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, bufsize=0)
        return cls(campaign, seed, process, errors, until)

    def said(self) -> str:
        """Return the end of what the process wrote to its standard error."""
        self.errors.seek(0)
        return self.errors.read()[-2000:].decode(errors="replace")

    def end(self) -> None:
        """Ask the process to end, which removes its home, and wait for it."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


class Runner:
    """Runs campaigns until a moment, those that are behind most of their goals first."""

    def __init__(
        self,
        seeds: dict[str, int],
        reached: dict[str, float],
        tell: Callable[[str, Outcome], float],
    ) -> None:
        """Begin each campaign at its seed.

        Args:
            seeds: campaign -> the first seed that was not run.
            reached: campaign -> how much of its goal it has reached.
            tell: is given each outcome; returns how much of its goal the campaign has reached then.
        """
        self.seeds, self.reached, self.tell = seeds, reached, tell
        self.selector = selectors.DefaultSelector()
        self.running: list[Running] = []

    def run(self, until: float, jobs: int) -> None:
        """Keep ``jobs`` processes at work until the monotonic clock is at ``until``."""
        try:
            while time.monotonic() < until:
                while len(self.running) < jobs and (name := self._next()):
                    self._start(name, until)
                if not self.running:
                    return
                for key, _ in self.selector.select(1.0):
                    self._hear(key.data)
                self._relieve()
        finally:
            for one in list(self.running):
                self._stop(one)

    def _next(self) -> str | None:
        busy = {one.campaign for one in self.running}
        free = [name for name in self.seeds if name not in busy]
        return min(free, key=lambda name: self.reached[name], default=None)

    def _start(self, name: str, until: float) -> None:
        one = Running.start(name, self.seeds[name], min(until, time.monotonic() + SLICE))
        self.running.append(one)
        self.selector.register(one.process.stdout or sys.stdin, selectors.EVENT_READ, one)

    def _hear(self, one: Running) -> None:
        line = one.process.stdout.readline() if one.process.stdout else b""
        if line:
            found = Outcome.of_json(json.loads(line))
            one.heard = time.monotonic()
        else:
            code = one.process.wait()
            found = Outcome(self.seeds[one.campaign])
            found.faults.append(("other", 0, f"the process ended with {code}: {one.said()}"))
        self.seeds[one.campaign] = found.seed + 1
        self.reached[one.campaign] = self.tell(one.campaign, found)
        if not line:
            self._stop(one)

    def _relieve(self) -> None:
        """End processes whose time is over, and those that hang."""
        now = time.monotonic()
        for one in list(self.running):
            if now > one.heard + PATIENCE:
                found = Outcome(self.seeds[one.campaign])
                found.faults.append(("other", 0, f"it hangs: {one.said()}"))
                self.seeds[one.campaign] += 1
                self.tell(one.campaign, found)
                self._stop(one)
            elif len(self.seeds) > len(self.running) and (now > one.until or self._is_done(one)):
                self._stop(one)

    def _is_done(self, one: Running) -> bool:
        """Return whether a campaign has reached its goal, and one that waits has not."""
        waiting = self._next()
        return self.reached[one.campaign] >= 1 and waiting is not None and self.reached[waiting] < 1

    def _stop(self, one: Running) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(one.process.stdout or sys.stdin)
        self.running.remove(one)
        one.end()


def again(campaign: str, seed: int, case: int | None) -> Sequence[str]:
    """Return the command that repeats a seed, or one case of it."""
    word = f"{campaign}:{seed}" if case is None else f"{campaign}:{seed}:{case}"
    return ["python", "-m", "bench.trust", "--again", word]
