"""``kill -9`` at a random moment of every command that writes: as before or as after, never between."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Final

from bench.trust.outcome import NO_CASE
from tests.reliability.harness import FILE, Runner, template
from tests.reliability.killing import COMMANDS, Command, Trial, complete, edited
from tests.support import Repo

_MORE: Final[dict[str, Command]] = {
    "add": Command(("theta", "add", FILE), edited),
    "restore": Command(("theta", "restore", FILE), lambda repo: (repo.path / FILE).unlink()),
    "restore over": Command(("theta", "restore", FILE), edited),
    "squash": Command(("theta", "merge", "--squash", "other")),
    "gc": Command(("theta", "gc", "--prune=now", "--quiet")),
}


class Kills:
    """Commands that are killed alone or with all that they started; the next commands go on from there."""

    name = "kills"
    title = "`kill -9` at random moments of every command that writes"
    counts = "kills"
    each = 5

    def prepare(self, place: Path) -> None:
        """Make the repository whose copies are used."""
        self.use(origin(place), place)

    def use(self, origin: Repo, place: Path) -> None:
        """Take copies of ``origin``."""
        self.origin, self.place = origin, place
        self.commands = COMMANDS | _MORE
        self.names = sorted(self.commands)
        self.trials: dict[str, Trial] = {}

    def case(self, seed: int, number: int) -> str:
        """Kill a command, look, go on, and look again; the seed says which command."""
        name, dice = self.names[seed % len(self.names)], random.Random(f"kills {seed} {number}")
        trial = self.trials.get(name) or self._trial(name)
        share, group, abort = dice.uniform(0.02, 1.0), dice.random() < 0.5, dice.random() < 0.3
        try:
            hit = trial.kill(share, group=group, abort=abort)
        except AssertionError as error:
            about = f"{name}, killed at {share:.3f} of {trial.length:.2f} s, {group=}, {abort=}"
            raise AssertionError(f"{about}: {error}") from error
        finally:
            shutil.rmtree(trial.last, ignore_errors=True)
        return name if hit else NO_CASE

    def _trial(self, name: str) -> Trial:
        made = self.trials[name] = Trial(self.origin, self.commands[name], self.place / name)
        return made


def origin(place: Path) -> Repo:
    """Return the repository that commands are killed on."""
    return complete(template(Runner(place), place / "origin"))
