"""The order of the units of one model that is nearest to another's.

Weight matching of Git Re-Basin (Ainsworth et al., arXiv:2209.04836, algorithm 1): among all orders that leave
the function of theirs as it is, find one with a large inner product of the weights of both.  Of one group of
units, the others held, the best order is the solution of an assignment problem whose gains are
``sum A_axis B_axis^T`` over all axes of the group; groups are taken in turns until none can be improved.

The first round looks only at axes whose other ends are ordered already, from the ends of fixed order (tokens,
inputs, outputs) inwards.  So a model whose units were only reordered is put back exactly.

Optimal transport (Singh and Jaggi, arXiv:1910.05895; of transformers Imfeld et al., arXiv:2310.05719) is that
first round alone, with distances: units are points, whose coordinates are their weights to units that are
ordered already, and theirs are moved to ours at the least sum of Euclidean distances.  The assignment is
hard: between as many points of equal weight an optimal plan is an order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from theta._blas import one_thread
from theta._numpy import np
from theta.merging.alignment import assignment, attention
from theta.merging.alignment.axes import UNITS, Axis, AxisPart, UnitLayout, order_of, reordered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.merging.alignment.axes import Order

    Array = NDArray[np.float64]

Key: TypeAlias = tuple[str, str]
UnitSpan: TypeAlias = tuple[AxisPart, int]
Axes: TypeAlias = tuple[Axis, ...]
ValuePair: TypeAlias = "Callable[[str], tuple[RowValues, RowValues]]"
"""Returns the values of ours and theirs of a tensor."""

BLOCK: Final = 1 << 22
"""Values of a side that are float64 at the same time; a row is never divided."""
_ROUNDS: Final = 100
_TIE: Final = 1e-9
"""The relative gain that is none: sums are rounded."""


class RowValues(Protocol):
    """The values of a tensor, of which rows are read: a slice of them, or some by their numbers.

    The words of a tensor whose rows are read by their numbers are kept in memory.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all values."""
        ...

    def __getitem__(self, which: Any, /) -> Any:
        """Return rows as float64."""
        ...


class _Products:
    """Inner products of units of ours and theirs, and their squared lengths, summed over coordinates."""

    def __init__(self, ours: int, theirs: int) -> None:
        self._sums = np.zeros((ours, theirs))
        self._lengths = np.zeros(ours), np.zeros(theirs)

    def add(self, ours: Array, theirs: Array, first: int = 0, second: int = 0) -> None:
        """Add some coordinates of the units from ``first`` of ours and from ``second`` of theirs."""
        rows, columns = slice(first, first + len(ours)), slice(second, second + len(theirs))
        self._sums[rows, columns] += ours @ theirs.T
        if not second:
            self._lengths[0][rows] += np.einsum("ij,ij->i", ours, ours)
        if not first:
            self._lengths[1][columns] += np.einsum("ij,ij->i", theirs, theirs)

    def gains(self, *, transport: bool) -> Array:
        """Return the products, or the negative squared distances."""
        if not transport:
            return self._sums
        near: Array = 2 * self._sums - self._lengths[0][:, None] - self._lengths[1]
        return near


class Matching:
    """Finds the orders of theirs.

    Args:
        layout: the axes of the tensors that both models have.
        read: returns the values of a tensor of ours and theirs, whose axes in order have the same sizes.
        transport: by optimal transport, not by weight matching.
    """

    def __init__(self, layout: UnitLayout, read: ValuePair, *, transport: bool = False) -> None:
        self._layout, self._read, self._transport = layout, read, transport
        self.orders: dict[Key, Order] = {key: np.arange(size) for key, size in layout.sizes().items()}
        """The orders that were found so far."""
        self._keys: dict[str, list[Key]] = {}
        for key in self.orders:
            self._keys.setdefault(key[0], []).append(key)
        self._tensors: dict[str, list[str]] = {group: [] for group in self._keys}
        for name, axes in layout.axes.items():
            for group in dict.fromkeys(part.group for axis in axes for part in axis if part.group):
                self._tensors[group].append(name)

    def solve(self, done: Callable[[], None] = lambda: None) -> dict[Key, Order]:
        """Return the orders; ``done`` is called after each step."""
        with one_thread:
            order: list[str] = []
            while len(order) < len(self._keys):
                order.append(self._next(order))
                self._improve(order[-1], order[:-1])
                done()
            for _ in range(0 if self._transport else _ROUNDS):
                improved = [self._improve(group) for group in order]
                done()
                if not any(improved):
                    break
        return self.orders

    def _next(self, known: list[str]) -> str:
        """Return the group whose tensors have the largest share of values that go only to ``known`` ones."""

        def share(group: str) -> float:
            sizes = {name: self._size(name) for name in self._tensors[group]}
            usable = (size for name, size in sizes.items() if self._is_usable(name, group, known))
            return sum(usable) / max(sum(sizes.values()), 1)

        return max((group for group in self._keys if group not in known), key=share)

    def _size(self, name: str) -> float:
        size = 1.0
        for axis in self._layout.axes[name]:
            size *= sum(part.size for part in axis)
        return size

    def _is_usable(self, name: str, group: str, known: list[str]) -> bool:
        """Return whether one axis of the tensor is of ``group``, and the others of ``known`` groups."""
        own = [axis for axis in self._layout.axes[name] if any(part.group == group for part in axis)]
        others = (part.group for axis in self._layout.axes[name] if axis not in own for part in axis)
        return len(own) == 1 and all(not other or other in known for other in others)

    def _improve(self, group: str, known: list[str] | None = None) -> bool:
        """Give ``group`` a better order; look at all axes, or only at those that go to ``known`` groups."""
        names = self._tensors[group]
        if known is not None:
            names = [name for name in names if self._is_usable(name, group, known)]
        gains = self._gains(group, names)
        if not gains:
            return False
        found = self._best(group, gains)
        before, after = (_total(gains, orders) for orders in (self.orders, found))
        if not after - before > _TIE * (abs(before) + abs(after)):
            return False
        self.orders |= found
        return True

    def _best(self, group: str, gains: Mapping[Key, Array]) -> dict[Key, Order]:
        if group not in self._layout.heads:
            key = (group, UNITS)
            return {key: assignment.best(gains[key])}
        by_role = {role: gain for (_, role), gain in gains.items()}
        sizes = {role: self.orders[group, role].size for _, role in self._keys[group]}
        found = attention.best(self._layout.heads[group], by_role, sizes)
        return {(group, role): order for role, order in found.items()}

    def _gains(self, group: str, names: list[str]) -> dict[Key, Array]:
        """Return for each role what it gains to have unit j of theirs in the place of unit i of ours."""
        gains: dict[Key, Array] = {}
        for name in names:
            for key, gain in self._gains_of(group, name):
                gains[key] = gains[key] + gain if key in gains else gain
        if self._transport:
            return {key: -np.sqrt(np.maximum(-gain, 0)) for key, gain in gains.items()}
        return gains

    def _gains_of(self, group: str, name: str) -> Iterator[tuple[Key, Array]]:
        """Yield inner products of the units of ours and theirs, or their negative squared distances."""
        axes = self._layout.axes[name]
        ours, theirs = self._read(name)
        for number, axis in enumerate(axes):
            if all(part.group != group for part in axis):
                continue
            others = tuple(() if at == number else one for at, one in enumerate(axes))
            own = list(_spans(axis, group))
            found = self._across(number, own, others, ours, theirs) if number else None
            for part, first in own:
                products = found[part, first] if found else self._along(part, first, others, ours, theirs)
                yield part.key, products.gains(transport=self._transport)

    def _along(
        self, part: AxisPart, first: int, others: Axes, ours: RowValues, theirs: RowValues
    ) -> _Products:
        """Return the products of units that are rows, for blocks of rows of both.

        Rows of theirs are read by their numbers, and so are in memory: each block of ours meets all of them.
        """
        products = _Products(part.size, part.size)
        blocks = list(row_blocks((part.size, *ours.shape[1:])))
        for start, stop in blocks:
            left = _rows(ours[first + start : first + stop])
            for begin, end in blocks:
                which = np.arange(first + begin, first + end)
                right = _with_others(theirs[which], others, self.orders)
                products.add(left, _rows(right), start, begin)
        return products

    def _across(
        self, number: int, own: Sequence[UnitSpan], others: Axes, ours: RowValues, theirs: RowValues
    ) -> dict[UnitSpan, _Products]:
        """Return the products of units that are no rows, summed over blocks of rows."""
        found = {span: _Products(span[0].size, span[0].size) for span in own}
        order, rest = order_of(others[0], self.orders), ((), *others[1:])
        for start, stop in row_blocks(ours.shape):
            left = np.moveaxis(ours[start:stop], number, 0)
            moved = theirs[start:stop] if order is None else theirs[order[start:stop]]
            right = np.moveaxis(_with_others(moved, rest, self.orders), number, 0)
            for (part, first), products in found.items():
                units = slice(first, first + part.size)
                products.add(_rows(left[units]), _rows(right[units]))
        return found


def row_blocks(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first row of each block of a tensor, and that after its last."""
    rows = max(BLOCK // max(math.prod(shape[1:]), 1), 1)
    for start in range(0, shape[0], rows):
        yield start, min(start + rows, shape[0])


def _spans(axis: Axis, group: str) -> Iterator[UnitSpan]:
    """Yield the parts of an axis that are of ``group``, and where they begin."""
    start = 0
    for part in axis:
        if part.group == group:
            yield part, start
        start += part.size


def _with_others(values: Any, axes: Any, orders: Any) -> Any:
    """Return ``values`` with the axes in order that are named, and the one that is empty as it is."""
    for number, axis in enumerate(axes):
        if axis:
            values = reordered(
                values, tuple(axis if at == number else () for at in range(number + 1)), orders
            )
    return values


def _rows(values: Any) -> Array:
    found: Array = np.ascontiguousarray(values.reshape(len(values), -1))
    return found


def _total(gains: Mapping[Key, Array], orders: Mapping[Key, Order]) -> float:
    return float(sum(gain[np.arange(len(gain)), orders[key]].sum() for key, gain in gains.items()))
