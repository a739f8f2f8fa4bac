"""The order of attention heads, and of the units within them.

Heads of keys and values can change places; so can heads of queries that share them, and the values within a
head together with the inputs of the projection behind it.  Queries and keys within a head can change places
together, unless they are rotated by position.  The best order within is found for each pair of heads, and
the sum of its gains is what it gains to put one head in the place of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.merging.alignment import assignment
from theta.merging.alignment.axes import HEAD_ROLES, Heads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.merging.alignment.axes import Order

    Array = NDArray[np.float64]

_TURNS: Final = 3
"""How often the orders of queries, and of the units within a head, are found anew from each other."""


@dataclass(frozen=True)
class _Within:
    """The best orders within one head of ours and theirs: queries, keys, values, and what they gain."""

    queries: Order
    keys: Order
    values: Order
    gain: float


def best(heads: Heads, gains: Mapping[str, Array], sizes: Mapping[str, int]) -> dict[str, Order]:
    """Return the best order of each role in ``sizes``; roles without gains count nothing."""
    shaped = {role: _shaped(heads, role, gains.get(role), sizes.get(role)) for role in HEAD_ROLES}
    widths = _width(heads, sizes, "qk"), _width(heads, sizes, "vo")
    numbers = range(heads.keys)
    pairs = [[_within(heads, shaped, widths, (i, j)) for j in numbers] for i in numbers]
    matched = assignment.best(np.array([[one.gain for one in row] for row in pairs]))
    found: dict[str, list[Order]] = {role: [] for role in sizes}
    for i, j in enumerate(matched):
        one = pairs[i][j]
        within = {"q": one.keys, "k": one.keys, "v": one.values, "o": one.values}
        for role, size in sizes.items():
            width = heads.width(role, size)
            first = one.queries + j * heads.each if role in "qo" else np.array([j])
            found[role].append((first[:, None] * width + within[role]).reshape(-1))
    return {role: np.concatenate(orders) for role, orders in found.items()}


def _width(heads: Heads, sizes: Mapping[str, int], roles: str) -> int:
    """Return the units of a head of ``roles``; 1 where the model has none."""
    return next((heads.width(role, sizes[role]) for role in roles if role in sizes), 1)


def _shaped(heads: Heads, role: str, gain: Array | None, size: int | None) -> Any:
    """Return gains by head of keys, head of queries that shares it, and unit, of ours and of theirs."""
    if gain is None or size is None:
        return None
    each = heads.each if role in "qo" else 1
    return gain.reshape(heads.keys, each, heads.width(role, size), heads.keys, each, -1)


def _within(
    heads: Heads, shaped: Mapping[str, Any], widths: tuple[int, int], pair: tuple[int, int]
) -> _Within:
    """Return the best orders within a head of ours and one of theirs."""
    i, j = pair
    q, k, v, o = (None if gain is None else gain[i, :, :, j] for gain in map(shaped.get, HEAD_ROLES))
    queries = np.arange(heads.each)
    for _ in range(_TURNS if heads.each > 1 else 1):
        keys = _units(_summed(k, q, queries), widths[0], fixed=heads.rotary)
        values = _units(_summed(v, o, queries), widths[1])
        by_head = [
            gain[:, np.arange(len(units)), :, units].sum(0)
            for gain, units in ((q, keys), (o, values))
            if gain is not None
        ]
        queries = assignment.best(sum(by_head)) if by_head and heads.each > 1 else queries
    keys = _units(_summed(k, q, queries), widths[0], fixed=heads.rotary)
    values = _units(_summed(v, o, queries), widths[1])
    gain = _gain(_summed(k, q, queries), keys) + _gain(_summed(v, o, queries), values)
    return _Within(queries, keys, values, gain)


def _units(gains: Any, width: int, *, fixed: bool = False) -> Order:
    """Return the best order of the units within a head."""
    return np.arange(width) if fixed or gains is None else assignment.best(gains)


def _summed(own: Any, shared: Any, queries: Order) -> Any:
    """Return the gains of units of a head of keys, and of those of the heads of queries that share it."""
    found = None if own is None else own[0, :, 0]
    if shared is not None:
        more = shared[np.arange(len(queries)), :, queries].sum(0)
        found = more if found is None else found + more
    return found


def _gain(gains: Any, units: Order) -> float:
    return 0.0 if gains is None else float(gains[np.arange(len(units)), units].sum())
