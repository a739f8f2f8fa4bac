"""The campaigns by name."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from bench.trust.outcome import Campaign

NAMES: Final = {
    "files": "mutated_inputs.Files",
    "texts": "mutated_inputs.Texts",
    "codecs": "mutated_inputs.Codecs",
    "kills": "kills.Kills",
    "power": "power.Power",
    "full": "disk.Full",
    "errors": "disk.Errors",
    "short": "disk.Short",
    "schedules": "schedules.Schedules",
    "rot": "rot.Rot",
    "clocks": "clocks.Clocks",
    "torn": "torn.Torn",
    "hostile": "hostile_trees.Hostile",
    "histories": "with_git.WithGit",
}
"""Name -> the module and the class."""


GOALS: Final = {
    "files": 500_000,
    "texts": 1_000_000,
    "codecs": 500_000,
    "kills": 2_000,
    "power": 20_000,
    "full": 5_000,
    "errors": 500,
    "short": 100,
    "schedules": 1_000,
    "rot": 500,
    "clocks": 500,
    "torn": 500,
    "hostile": 1_000,
    "histories": 200,
}
"""Name -> the cases that one state of the sources is to have: who is behind most of its goal is next."""


def make(name: str) -> Campaign:
    """Return a new campaign; nothing of it is prepared."""
    module, _, kind = NAMES[name].partition(".")
    made: Campaign = getattr(import_module(f"bench.trust.{module}"), kind)()
    return made
