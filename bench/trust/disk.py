"""A disk that is full from a step on, that fails at one, or that reads and writes less than it was asked to.

The steps are those of all processes of a command: theta, git, hooks and the filter.
"""

from __future__ import annotations

import errno
import math
import random
import re
from pathlib import Path
from typing import Final

from bench.trust.outcome import NO_CASE, FaultError, about
from bench.trust.subjects import OnRepositories
from tests.reliability.harness import wait_for_children
from tests.support.faults import CHANGES, FAIL, FULL, GROWS, READS, SHORT, SYNCS
from tests.support.repos import Done, describe

_SHARE: Final = 0.618
"""Steps are taken in strides of this share of them, so that any number of cases is spread over all."""
_LEFT: Final = re.compile(r"^warning: unable to unlink '(.+\.lock)': ", re.MULTILINE)


class _Steps(OnRepositories):
    """Faults at the steps of commands, each step once before any is tried again."""

    each = 10
    kinds = GROWS
    deep = 0.15
    """The share of cases after which the command is repeated though nothing had changed."""

    def case(self, seed: int, number: int) -> str:
        """Let one step fail; the seed says of which command."""
        name = self.names[seed % len(self.names)]
        subject, dice = self.subject(name), random.Random(f"{type(self).__name__} {seed} {number}")
        subject.steps = subject.steps or subject.count(self.kinds)
        at = _at(seed // len(self.names) * self.each + number, subject.steps)
        subject.deep = dice.random() < self.deep
        with subject.copied() as repo, about(f"{name}, step {at} of {subject.steps}"):
            self.set(at, dice)
            done = subject.start(repo)
            wait_for_children(repo)
            hits = self.faults.hits
            self.faults.off()
            if hits:
                self.check(done)
            subject.aftermath(repo, done)
        return name if hits else NO_CASE

    def set(self, at: int, dice: random.Random, /) -> None:
        """Set the fault."""
        raise NotImplementedError

    def check(self, done: Done) -> None:
        """Check what the command said."""


def _at(visit: int, steps: int) -> int:
    """Return a step from 1 on, another one for each of the first ``steps`` visits."""
    stride = max(int(steps * _SHARE), 1)
    while math.gcd(stride, steps) != 1:
        stride += 1
    return 1 + visit * stride % steps


class Full(_Steps):
    """A full disk."""

    name = "full"
    title = "A disk that is full from one step of a command on"
    counts = "points"

    def set(self, at: int, _dice: random.Random) -> None:
        """Let all that grows files fail from a step on."""
        self.faults.set(FULL, at, self.kinds)


class Errors(_Steps):
    """A disk with errors."""

    name = "errors"
    title = "An input/output error at one read, write, sync or change of a name"
    counts = "points"
    kinds = GROWS | CHANGES | READS | SYNCS

    def set(self, at: int, dice: random.Random) -> None:
        """Let one step fail, as of a broken disk or as if it was interrupted."""
        self.faults.set(FAIL, at, self.kinds, error=dice.choice((errno.EIO, errno.EIO, errno.EINTR)))

    def check(self, done: Done) -> None:
        """Remove, as a user does, the lock of which git says that the disk let it stay."""
        for name in _LEFT.findall(done.stderr):
            Path(name).unlink()


class Short(_Steps):
    """A disk in pieces."""

    name = "short"
    title = "Reads and writes of random lengths, all of a command"
    counts = "runs"
    each = 2
    kinds = GROWS | READS

    def set(self, at: int, dice: random.Random) -> None:
        """Let all reads and writes do a part of what they are asked."""
        self.faults.set(SHORT, at, self.kinds, seed=dice.getrandbits(32))

    def check(self, done: Done) -> None:
        """It made no difference to the exit code."""
        if done.returncode:
            raise FaultError("wrong", describe(done))
