"""The rule of rooms: inside a layer too, imports point downwards, and only as the table allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.house.source import Source, within


@dataclass(frozen=True)
class Room:
    """A group of modules, and the rooms that they may import.

    ``modules`` are packages or modules; the longest name that fits a module is its room.
    ``below`` names rooms by their first module, or all the rooms of a package.
    """

    modules: tuple[str, ...]
    below: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The first of the modules."""
        return self.modules[0]


_READERS: Final = ("theta.formats.layout", "theta.formats.archives", "theta.formats.pickle")
_STORED: Final = ("theta.store.odb", "theta.store.format")
_VALUES: Final = ("theta.codecs", "theta.formats")
_WORKSPACE: Final = (
    "theta.engine",
    "theta.git",
    "theta.store",
    "theta.porcelain.setup",
    "theta.porcelain.workspace",
)

ROOMS: Final = (
    Room(("theta_native",)),
    Room(("theta.codecs",), ("theta_native",)),
    Room(
        (
            "theta.formats.layout",
            "theta.formats.cursor",
            "theta.formats.derived",
            "theta.formats.fields",
            "theta.formats.json_text",
            "theta.formats.npy",
            "theta.formats.plan",
        ),
        ("theta_native",),
    ),
    Room(("theta.formats.archives",), ("theta.formats.layout",)),
    Room(("theta.formats.pickle",), ("theta.formats.layout",)),
    Room(("theta.formats.torch",), _READERS),
    Room(("theta.formats.pickle_files",), (*_READERS, "theta.formats.torch")),
    Room(("theta.formats.hdf5",), _READERS),
    Room(("theta.formats.onnx",), _READERS),
    Room(
        ("theta.formats",),
        (
            "theta_native",
            *_READERS,
            "theta.formats.torch",
            "theta.formats.pickle_files",
            "theta.formats.hdf5",
            "theta.formats.onnx",
        ),
    ),
    Room(("theta.git",)),
    Room(("theta.store.odb",), ("theta.git",)),
    Room(("theta.store.format",), ("theta.git", "theta.store.odb", "theta.formats")),
    Room(("theta.store.files",), ("theta.git", *_STORED, "theta.formats")),
    Room(("theta.store.read",), ("theta.git", *_STORED, *_VALUES)),
    Room(("theta.store.write",), (*_STORED, "theta.store.files", "theta.store.read", *_VALUES)),
    Room(("theta.store",), ("theta.git", *_STORED, "theta.store.files", "theta.store.read")),
    Room(("theta.merging.states", "theta.merging.coded", "theta.merging.geometry"), ("theta.store",)),
    Room(("theta.merging.strategies",), ("theta_native", "theta.merging.states")),
    Room(
        ("theta.merging",),
        (*_VALUES, "theta.store", "theta.merging.states", "theta.merging.strategies"),
    ),
    Room(
        ("theta.engine",),
        ("theta.formats", "theta.git", "theta.store", "theta.merging"),
    ),
    Room(("theta.pages",), ("theta.git",)),
    Room(("theta.porcelain.setup",), ("theta.git", "theta.store")),
    Room(
        ("theta.porcelain.workspace",),
        ("theta.engine", "theta.formats", "theta.git", "theta.store", "theta.porcelain.setup"),
    ),
    Room(("theta.porcelain.drive",), _WORKSPACE),
    Room(("theta.porcelain.share",), (*_WORKSPACE, "theta.porcelain.drive")),
    Room(("theta.porcelain.merge",), ("theta.merging", *_WORKSPACE, "theta.porcelain.drive")),
    Room(("theta.porcelain.tensors",), ("theta.formats", "theta.merging", *_WORKSPACE)),
    Room(("theta.porcelain.look",), ("theta.formats", "theta.merging", *_WORKSPACE, "theta.porcelain.merge")),
    Room(
        ("theta.porcelain.stage",),
        (
            *_VALUES,
            "theta.merging",
            *_WORKSPACE,
            "theta.porcelain.look",
            "theta.porcelain.merge",
            "theta.porcelain.tensors",
        ),
    ),
    Room(("theta.porcelain.replicas",), (*_WORKSPACE, "theta.porcelain.stage")),
    Room(
        ("theta.porcelain.compose",),
        (
            "theta.formats",
            "theta.merging",
            *_WORKSPACE,
            "theta.porcelain.merge",
            "theta.porcelain.stage",
        ),
    ),
    Room(
        ("theta.porcelain.lineage",),
        (
            "theta.codecs",
            "theta.merging",
            *_WORKSPACE,
            "theta.porcelain.compose",
            "theta.porcelain.drive",
            "theta.porcelain.merge",
            "theta.porcelain.replicas",
            "theta.porcelain.stage",
            "theta.porcelain.tensors",
        ),
    ),
    Room(
        ("theta.porcelain.search",),
        (
            "theta.merging",
            *_WORKSPACE,
            "theta.porcelain.merge",
            "theta.porcelain.replicas",
        ),
    ),
    Room(
        ("theta.porcelain.migration",),
        (
            "theta.formats",
            *_WORKSPACE,
            "theta.porcelain.drive",
            "theta.porcelain.stage",
            "theta.porcelain.tensors",
        ),
    ),
    Room(
        ("theta.porcelain.plain_git",),
        (
            *_WORKSPACE,
            "theta.porcelain.look",
            "theta.porcelain.merge",
            "theta.porcelain.share",
            "theta.porcelain.stage",
        ),
    ),
    Room(
        ("theta.porcelain.care",),
        ("theta.merging", *_WORKSPACE, "theta.porcelain.drive", "theta.porcelain.look"),
    ),
    Room(("theta.porcelain.signing",), _WORKSPACE),
    Room(("theta.porcelain.check",), ("theta.formats", *_WORKSPACE, "theta.porcelain.tensors")),
    Room(
        ("theta.porcelain.studies",),
        (
            "theta.merging",
            *_WORKSPACE,
            "theta.porcelain.care",
            "theta.porcelain.lineage",
            "theta.porcelain.look",
            "theta.porcelain.stage",
        ),
    ),
    Room(
        ("theta.porcelain.commands",),
        (
            "theta.merging",
            *_WORKSPACE,
            "theta.porcelain.compose",
            "theta.porcelain.drive",
            "theta.porcelain.look",
            "theta.porcelain.merge",
            "theta.porcelain.search",
            "theta.porcelain.stage",
            "theta.porcelain.tensors",
        ),
    ),
    Room(("theta.porcelain",)),
    Room(("theta.api",), (*_VALUES, "theta.git", "theta.store", "theta.pages", "theta.porcelain")),
    Room(
        ("theta.hf", "theta.jax", "theta.keras", "theta.lightning", "theta.torch"),
        ("theta.porcelain.stage", "theta.api"),
    ),
    Room(
        ("theta.cli",),
        (
            "theta_native",
            *_VALUES,
            "theta.git",
            "theta.store",
            "theta.merging",
            "theta.pages",
            "theta.porcelain",
        ),
    ),
)
"""The rooms from the bottom up: a room imports only rooms above it in this table that it names.

All rooms may import the lowest layer; it is in ``tests/house/layers.py``, with the imports of ``theta``.
"""


def room_of(module: str) -> Room | None:
    """Return the room of ``module``; None for the lowest layer, the entry points, and modules of others."""
    fitting = [(len(name), room) for room in ROOMS for name in room.modules if within(module, name)]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def arrows_between_rooms(source: Source) -> list[str]:
    """Find imports of a room that the table does not allow."""
    here = room_of(source.module)
    found = []
    for node, target in source.imports():
        there = room_of(target)
        if here is None or there is None or here is there:
            continue
        if there.name not in here.below and not any(within(there.name, name) for name in here.below):
            found.append(source.at(node, f"{here.name} may not import {there.name} ({target})"))
    return found


def rooms_out_of_order() -> list[str]:
    """Find arrows of the table to a room that is not above."""
    return [
        f"{room.name} names {other.name}, which stands below it in the table"
        for number, room in enumerate(ROOMS)
        for other in ROOMS[number:]
        if other.name in room.below or any(within(other.name, name) for name in room.below)
    ]


def unfurnished(source: Source) -> list[str]:
    """Find a module of a package of rooms that is in none of them."""
    if not within(source.module, "theta.porcelain") or source.is_package:
        return []
    room = room_of(source.module)
    inside = room is not None and room.name != "theta.porcelain"
    return [] if inside else [source.at(source.tree, "stands in no room of theta.porcelain")]
