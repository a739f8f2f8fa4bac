"""The units behind the axes of tensors, and the orders in which a model may have them.

A network computes the same after its hidden units are reordered, if every axis over these units is.  An
axis is a sequence of parts, each over the units of one group: ``mlp``, ``attn/q+attn/k+attn/v``, or empty
for an order that is fixed.  Groups of attention heads have several kinds of axes (their *roles*).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from theta._numpy import np
from theta.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Order = NDArray[np.int64]

UNITS: Final = "units"
HEAD_ROLES: Final = ("q", "k", "v", "o")
"""Queries, keys, values, and the inputs of the projection behind the heads."""


@dataclass(frozen=True)
class Heads:
    """The numbers of attention heads.

    Attributes:
        queries: heads of queries.
        keys: heads of keys and values; each is shared by ``queries / keys`` heads of queries.
        rotary: queries and keys are rotated by position, which fixes the order within a head.
    """

    queries: int
    keys: int
    rotary: bool

    @property
    def each(self) -> int:
        """How many heads of queries share one of keys."""
        return self.queries // self.keys

    def width(self, role: str, size: int) -> int:
        """Return the size of one head; raises :class:`UsageError` if ``size`` units are not whole heads."""
        count = self.keys if role in "kv" else self.queries
        if size % count:
            raise UsageError(f"{size} units are not {count} heads", hint="say heads and kv_heads in the spec")
        return size // count


@dataclass(frozen=True)
class AxisPart:
    """A part of an axis: the units of ``group``, by ``role``; their order is fixed where group is empty."""

    group: str
    role: str
    size: int

    @property
    def key(self) -> tuple[str, str]:
        """The key of its order: parts of one key have the same."""
        return self.group, self.role


Axis: TypeAlias = tuple[AxisPart, ...]


@dataclass(frozen=True)
class UnitLayout:
    """The axes of all tensors of a model.

    Attributes:
        axes: name of a tensor -> its axes; those that are not named are fixed.
        heads: the groups of attention heads.
    """

    axes: Mapping[str, tuple[Axis, ...]]
    heads: Mapping[str, Heads]

    def sizes(self) -> dict[tuple[str, str], int]:
        """Return (group, role) -> units; raises :class:`UsageError` if tensors disagree."""
        found: dict[tuple[str, str], int] = {}
        for name, axes in self.axes.items():
            for part in (part for axis in axes for part in axis if part.group):
                known = found.setdefault(part.key, part.size)
                if known != part.size:
                    raise UsageError(
                        f"{name} has {part.size} units of {part.group} and another tensor has {known}",
                        hint="say how the axes are connected with --align-spec FILE",
                    )
        return found


Orders: TypeAlias = Mapping[tuple[str, str], "Order"]
"""(Group, role) -> for each unit of ours the number of the unit of theirs in its place."""


def order_of(axis: Axis, orders: Orders) -> Order | None:
    """Return the order of an axis; None if it is the one that it has."""
    found, start, moved = [], 0, False
    for part in axis:
        own = orders.get(part.key) if part.group else None
        plain = np.arange(part.size)
        moved |= own is not None and not np.array_equal(own, plain)
        found.append((plain if own is None else own) + start)
        start += part.size
    return np.concatenate(found) if moved else None


def reordered(values: Any, axes: tuple[Axis, ...], orders: Orders) -> Any:
    """Return ``values`` with each axis in its order."""
    for number, axis in enumerate(axes):
        order = order_of(axis, orders)
        if order is not None:
            values = values.take(order, axis=number)
    return values
