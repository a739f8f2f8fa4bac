"""The three-way state of a tensor, by git's rules for files.

If all sides that changed a tensor changed it to the same value, that value is the result.  Otherwise the
tensor is in conflict.  Values are compared by digest.  There are two sides, or more for an octopus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from theta.lazy import lazy
from theta.merging import coded, geometry
from theta.merging.coded import Coded
from theta.merging.geometry import Geometry
from theta.store.format.manifest import Line, Manifest

_TIED: Final = re.compile(
    r"(.*\.)?(embed|embed_tokens|embed_in|embed_out|embeddings?|wte|word_embeddings|tok_embeddings|tokens_embed"
    r"|token_embd|shared|lm_head|head|output|decoder|encoder\.embed_tokens)(\.weight)?"
)
"""Names of embeddings and of heads, whose weights programs tie."""


class ConflictKind(Enum):
    """The kind of a conflict, in the words of ``git status``."""

    BOTH_MODIFIED = "both modified"
    BOTH_ADDED = "both added"
    DELETED_BY_US = "deleted by us"
    DELETED_BY_THEM = "deleted by them"
    RESHAPED = "shape or dtype changed"
    ONE_SIDED = "changed on one side"


@dataclass(frozen=True)
class Conflict:
    """A tensor that several sides changed.

    Attributes:
        name: name of the tensor.
        base: the common ancestor's version, or None.
        ours: our version; None when it was deleted.
        theirs: their version; None when it was deleted.
        others: the versions of further branches in an octopus.
        everything: the merge has scope ``all``, so unchanged sides are inputs too.
        absent: numbers of sides that are inputs only if they changed the tensor.
        coded: the group of codes and scales with the tensor, which must come from one side.
    """

    name: str
    base: Line | None
    ours: Line | None
    theirs: Line | None
    others: tuple[Line | None, ...] = ()
    everything: bool = False
    absent: tuple[int, ...] = ()
    coded: Coded | None = None

    @property
    def sides(self) -> tuple[Line | None, ...]:
        """All sides, in the order of the merge's parents."""
        return (self.ours, self.theirs, *self.others)

    @property
    def changed(self) -> tuple[Line | None, ...]:
        """The sides that a strategy merges: those that differ from the base."""
        return tuple(self.sides[number] for number in self.changed_numbers)

    @property
    def changed_numbers(self) -> tuple[int, ...]:
        """The numbers of :attr:`changed` among :attr:`sides`."""
        return tuple(
            number
            for number, side in enumerate(self.sides)
            if not same(side, self.base) or (self.everything and number not in self.absent)
        )

    @property
    def kind(self) -> ConflictKind:
        """The kind of the conflict."""
        if isinstance(decide(self.name, self.base, *self.sides), Settled):
            return ConflictKind.ONE_SIDED
        if self.ours is None and self.base is not None:
            return ConflictKind.DELETED_BY_US
        if None in self.changed:
            return ConflictKind.DELETED_BY_THEM
        if not self.same_geometry:
            return ConflictKind.RESHAPED
        return ConflictKind.BOTH_ADDED if self.base is None else ConflictKind.BOTH_MODIFIED

    @property
    def same_geometry(self) -> bool:
        """Whether all sides to merge have the tensor, with the same dtype and shape."""
        sides = self.changed
        return all(sides) and len({(side.dtype, side.shape) for side in sides if side}) == 1

    @property
    def usable_base(self) -> Line | None:
        """The base if it can be computed with beside the sides, otherwise None."""
        sides = [side for side in self.changed if side is not None]
        return self.base if self.base is not None and geometry.fits(self.base, sides) else None

    @lazy
    def geometry(self) -> Geometry | None:
        """The dtype and shape of what the sides become together; None when they do not fit."""
        sides = [side for side in self.changed if side is not None]
        return geometry.joined(self.base, sides) if sides else None


@dataclass(frozen=True)
class Settled:
    """A tensor that needs no decision; ``line`` is None when it is deleted."""

    name: str
    line: Line | None
    coded: Coded | None = None


def three_way(
    base: Manifest | None, ours: Manifest, theirs: Manifest, *others: Manifest
) -> Iterator[Settled | Conflict]:
    """Yield the state of every tensor of any version, in order of name.

    Codes and scales are one value in several tensors: if two sides changed a group differently, all its
    changed tensors are in conflict, even if only one side changed each.
    """
    before = base.by_name if base else {}
    sides = [side.by_name for side in (ours, theirs, *others)]
    versions = [before, *sides]
    groups = coded.groups((line.name, line.dtype) for lines in versions for line in lines.values())
    names = _by_digest(before)
    torn = {group: _is_torn(group, before, sides) for group in set(groups.values())}
    for name in sorted(before.keys() | set().union(*sides)):
        lines = [version.get(name) for version in versions]
        state, group = decide(name, *lines), groups.get(name)
        if isinstance(state, Conflict) and None in lines[1:] and (twin := _twin(lines, names, versions)):
            kept = [line or version.get(twin) for line, version in zip(lines, versions, strict=True)]
            state = decide(name, *(line and replace(line, name=name) for line in kept))
        if group is None:
            yield state
        elif torn[group] and not all(same(lines[0], line) for line in lines):
            yield Conflict(name, lines[0], lines[1], lines[2], tuple(lines[3:]), coded=group)
        else:
            yield replace(state, coded=group)


def _by_digest(lines: Mapping[str, Line]) -> dict[str, list[str]]:
    """Return digest -> the names of the tensors with that value."""
    found: dict[str, list[str]] = {}
    for name, line in lines.items():
        found.setdefault(line.digest, []).append(name)
    return found


def _twin(
    lines: Sequence[Line | None], names: Mapping[str, list[str]], versions: Sequence[Mapping[str, Line]]
) -> str | None:
    """Return the tensor that this one is tied to: equal in each version that has both; all have that one.

    Programs leave out one of two tied tensors when they save: an ``lm_head`` that equals the embedding.
    Other tensors may be equal by chance, as all norms are at first.
    """

    def tied(name: str) -> bool:
        pairs = zip((version.get(name) for version in versions), lines, strict=True)
        return all(twin is not None and (line is None or same(twin, line)) for twin, line in pairs)

    base = lines[0]
    if base is None or len(base.shape) != 2 or not _TIED.fullmatch(base.name):
        return None
    return next((name for name in names[base.digest] if _TIED.fullmatch(name) and tied(name)), None)


def _is_torn(group: Coded, before: Mapping[str, Line], sides: Sequence[Mapping[str, Line]]) -> bool:
    """Return whether sides changed ``group`` to different values."""

    def value(lines: Mapping[str, Line]) -> tuple[str | None, ...]:
        return tuple(lines[name].digest if name in lines else None for name in group.names)

    return len({value(side) for side in sides} - {value(before)}) > 1


def decide(name: str, base: Line | None, *sides: Line | None) -> Settled | Conflict:
    """Return the state of one tensor with two or more sides."""
    changed = [side for side in sides if not same(side, base)]
    if not changed:
        return Settled(name, sides[0])
    if all(same(changed[0], side) for side in changed[1:]):
        return Settled(name, changed[0])
    ours, theirs, *others = sides
    return Conflict(name, base, ours, theirs, tuple(others))


def same(one: Line | None, other: Line | None) -> bool:
    """Return whether both are None, or both have the same value."""
    if one is None or other is None:
        return one is other
    return one.same_value(other)
