"""The three-way state of one tensor, exactly git's rules for a file.

A side that did not change the tensor has no say; both sides at the same value agree; anything
else that both changed is a conflict.  Values are compared by digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from theta.store.manifest import Line, Manifest


class Kind(Enum):
    """What both sides did, in the words of git's status."""

    BOTH_MODIFIED = "both modified"
    BOTH_ADDED = "both added"
    DELETED_BY_US = "deleted by us"
    DELETED_BY_THEM = "deleted by them"
    RESHAPED = "shape or dtype changed"


@dataclass(frozen=True)
class Conflict:
    """A tensor that both sides changed; a side is none where it has no such tensor."""

    name: str
    base: Line | None
    ours: Line | None
    theirs: Line | None

    @property
    def kind(self) -> Kind:
        """What both sides did."""
        if self.ours is None:
            return Kind.DELETED_BY_US
        if self.theirs is None:
            return Kind.DELETED_BY_THEM
        if not self.same_geometry:
            return Kind.RESHAPED
        return Kind.BOTH_ADDED if self.base is None else Kind.BOTH_MODIFIED

    @property
    def same_geometry(self) -> bool:
        """Whether both sides have the tensor, in one dtype and shape."""
        sides = (self.ours, self.theirs)
        return all(sides) and len({(side.dtype, side.shape) for side in sides if side}) == 1


@dataclass(frozen=True)
class Settled:
    """A tensor that needs no decision; ``line`` is none where it is deleted."""

    name: str
    line: Line | None


def three_way(base: Manifest | None, ours: Manifest, theirs: Manifest) -> Iterator[Settled | Conflict]:
    """The state of every tensor that any side has, in order of name."""
    before = base.by_name if base else {}
    for name in sorted(before.keys() | ours.by_name.keys() | theirs.by_name.keys()):
        yield decide(name, before.get(name), ours.by_name.get(name), theirs.by_name.get(name))


def decide(name: str, base: Line | None, ours: Line | None, theirs: Line | None) -> Settled | Conflict:
    """The state of one tensor."""
    if same(ours, theirs) or same(theirs, base):
        return Settled(name, ours)
    if same(ours, base):
        return Settled(name, theirs)
    return Conflict(name, base, ours, theirs)


def same(one: Line | None, other: Line | None) -> bool:
    """Whether both are absent, or both have one value."""
    if one is None or other is None:
        return one is other
    return one.same_value(other)
