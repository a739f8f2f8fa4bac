"""The three-way state of a tensor, by git's rules for files.

If all sides that changed a tensor changed it to the same value, that value is the result.  Otherwise the
tensor is in conflict.  Values are compared by digest.  There are two sides, or more for an octopus.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        chosen: the number of the only side that counts, or None.
        reason: a clause that says why only taking a side settles it; empty when others may.
        rows: the number of rows of the result, if rows are matched by token; None if by their number.
    """

    name: str
    base: Line | None
    ours: Line | None
    theirs: Line | None
    others: tuple[Line | None, ...] = ()
    everything: bool = False
    absent: tuple[int, ...] = ()
    coded: Coded | None = None
    chosen: int | None = None
    reason: str = ""
    rows: int | None = None

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
        if self.chosen is not None:
            return (self.chosen,)
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
        base = self.base if self.chosen is None else None
        if self.rows is not None:
            sides = [replace(side, shape=(self.rows, *side.shape[1:])) for side in sides]
            base = None if base is None else replace(base, shape=(self.rows, *base.shape[1:]))
        return geometry.joined(base, sides) if sides else None


@dataclass(frozen=True)
class Settled:
    """A tensor that needs no decision; ``line`` is None when it is deleted."""

    name: str
    line: Line | None
    coded: Coded | None = None


WholeModel = Callable[[], Sequence[Mapping[str, Line]]]
"""Returns the tensors of a model in several files, by name: those of the base, then of each side."""


def three_way(
    base: Manifest | None,
    ours: Manifest,
    theirs: Manifest,
    *others: Manifest,
    model: WholeModel | None = None,
) -> Iterator[Settled | Conflict]:
    """Yield the state of every tensor of any version, in order of name.

    Codes and scales are one value in several tensors: if two sides changed a group differently, all its
    changed tensors are in conflict, even if only one side changed each.
    """
    before = base.by_name if base else {}
    sides = [side.by_name for side in (ours, theirs, *others)]
    versions = [before, *sides]
    groups = coded.groups((line.name, line.dtype) for lines in versions for line in lines.values())
    ties = _Ties(model or (lambda: versions))
    torn = {group: _is_torn(group, before, sides) for group in set(groups.values())}
    for name in sorted(before.keys() | set().union(*sides)):
        lines = [version.get(name) for version in versions]
        state, group = decide(name, *lines), groups.get(name)
        if isinstance(state, Conflict) and None in lines[1:]:
            state = decide(name, *ties.filled(lines))
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


class _Ties:
    """The tied tensors of a model, which may be in several files.

    Programs leave out one of two tied tensors when they save: an ``lm_head`` that equals the embedding.
    Other tensors may be equal by chance, as all norms are at first.
    """

    def __init__(self, model: WholeModel) -> None:
        self._model = model

    @lazy
    def _versions(self) -> Sequence[Mapping[str, Line]]:
        return self._model()

    @lazy
    def _names(self) -> dict[str, list[str]]:
        return _by_digest(self._versions[0])

    def filled(self, lines: Sequence[Line | None]) -> Sequence[Line | None]:
        """Return the versions of a tensor; for a side without it, that of the tensor that it is tied to."""
        base = lines[0]
        if base is None or len(base.shape) != 2 or not _TIED.fullmatch(base.name):
            return lines
        names = (name for name in self._names.get(base.digest, ()) if _TIED.fullmatch(name))
        twin = next((name for name in names if self._is_tied(name, lines)), None)
        if twin is None:
            return lines
        pairs = zip(lines, self._versions, strict=True)
        return [line or replace(version[twin], name=base.name) for line, version in pairs]

    def _is_tied(self, name: str, lines: Sequence[Line | None]) -> bool:
        """Return whether all versions have the tensor ``name``, equal to ``lines`` where these are."""
        pairs = zip((version.get(name) for version in self._versions), lines, strict=True)
        return all(twin is not None and (line is None or same(twin, line)) for twin, line in pairs)


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
