"""``kill -9`` of every command that writes, at random moments: as before or as after, never between."""

from __future__ import annotations

import random

from bench.trust.outcome import NO_CASE, about
from bench.trust.subjects import OnRepositories
from tests.reliability.harness import wait_for_children
from tests.reliability.killing import kill


class Kills(OnRepositories):
    """Commands that are killed alone or with all that they started; the next commands go on from there."""

    name = "kills"
    title = "`kill -9` at random moments of every command that writes"
    counts = "kills"
    each = 5

    def case(self, seed: int, number: int) -> str:
        """Kill a command, look, go on, and look again; the seed says which command."""
        name, dice = self.names[seed % len(self.names)], random.Random(f"kills {seed} {number}")
        subject = self.subject(name)
        share, group, abort = dice.uniform(0.02, 1.0), dice.random() < 0.5, dice.random() < 0.3
        subject.deep = dice.random() < 0.2
        told = f"{name}, killed at {share:.3f} of {subject.length:.2f} s, {group=}, {abort=}"
        with subject.copied() as repo, about(told):
            hit = kill(repo, subject.command.args, share * subject.length, group=group)
            wait_for_children(repo)
            subject.aftermath(repo, None, abort=abort)
        return name if hit else NO_CASE
