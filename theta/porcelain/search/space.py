"""The values that a search tries: axes such as ``weight=0:1:0.1``, and the ways through them.

A grid takes every combination of steps.  Random search draws evenly, which finds more than a grid where few
of the axes matter (Bergstra and Bengio, JMLR 2012).  CMA-ES follows the scores (Hansen, arXiv:1604.00772; for
merges Akiba et al., arXiv:2403.13187); it is that of the package ``cma``.
"""

from __future__ import annotations

import importlib
import itertools
import math
import random
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from theta.errors import NotFoundError, UsageError
from theta.merging.strategies import Strategy, make, registry
from theta.merging.strategies.parameter_text import Setting

WAYS: Final = ("grid", "random", "cma")
TRIALS: Final = 20
"""The number of trials of a way that has no end of its own."""
_MOST: Final = 10_000
_AXIS: Final = re.compile(r"([a-z0-9_]+)(?:\[([0-9]{1,3})\])?=([^:]+):([^:]+)(?::([^:]+))?")
_SHARES: Final = ("average", "linear")

Point = tuple[float, ...]
"""A value for each axis."""


@dataclass(frozen=True)
class Axis:
    """The values of one parameter.

    Attributes:
        name: the parameter of the strategy.
        low: the least value.
        high: the greatest value.
        step: the distance of the values; 0 for all numbers between.
        side: the side that it is for, 0 for ours; None for a value for all sides.
    """

    name: str
    low: float
    high: float
    step: float = 0.0
    side: int | None = None

    @property
    def label(self) -> str:
        """The name, with the number of the side."""
        return self.name if self.side is None else f"{self.name}[{self.side}]"

    def __str__(self) -> str:
        ends = f"{self.label}={self.low:g}:{self.high:g}"
        return f"{ends}:{self.step:g}" if self.step else ends

    @property
    def count(self) -> int:
        """The number of values of an axis with steps."""
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    @property
    def values(self) -> list[float]:
        """All values of an axis with steps."""
        return [self.nearest(self.low + number * self.step) for number in range(self.count)]

    def nearest(self, value: float) -> float:
        """Return the value of the axis that is nearest to ``value``."""
        held = min(max(value, self.low), self.high)
        if not self.step:
            return held
        steps = min(round((held - self.low) / self.step), self.count - 1)
        return min(max(float(f"{self.low + steps * self.step:.12g}"), self.low), self.high)


def axis(text: str) -> Axis:
    """Parse ``NAME=LOW:HIGH[:STEP]`` or ``NAME[SIDE]=...``; raises :class:`UsageError`."""
    found = _AXIS.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        low, high, step = (float(part or 0) for part in found.groups()[2:])
        if not all(map(math.isfinite, (low, high, step))) or low >= high or not 0 <= step <= high - low:
            raise ValueError
    except ValueError as error:
        raise UsageError(
            f"a search is NAME=LOW:HIGH or NAME=LOW:HIGH:STEP, not {text!r}", hint="--search weight=0:1:0.1"
        ) from error
    return Axis(found[1], low, high, step, int(found[2]) if found[2] else None)


def at(strategy: Strategy, axes: Sequence[Axis], point: Point, sides: int) -> Strategy:
    """Return ``strategy`` with the values of ``point``; raises :class:`UsageError` if it cannot have them.

    For ``average`` and ``linear`` of two sides a plain ``weight`` is the share of theirs: equal weights of
    both would change nothing.
    """
    given: dict[str, Setting] = strategy.given
    for one, value in zip(axes, point, strict=True):
        if one.side is not None:
            given[one.name] = _for_side(strategy, given, one, value, sides)
        elif one.name == "weight" and strategy.name in _SHARES and sides == 2:
            given["alpha"] = float(f"{1 - value:.12g}")
        else:
            given[one.name] = value
    return make(strategy.name, given)


def _for_side(
    strategy: Strategy, given: dict[str, Setting], one: Axis, value: float, sides: int
) -> tuple[Setting, ...]:
    known = {p.name: p for p in registry.method(strategy.name).parameters}
    if one.name in known and not known[one.name].per_model:
        raise UsageError(f"{one.name} has one value for all sides", hint=f"--search {one.name}=LOW:HIGH")
    if one.side is None or one.side >= sides:
        raise UsageError(f"{one.label}: the merge has {sides} sides", hint="ours is 0")
    before = given.get(one.name, known[one.name].default if one.name in known else 1.0)
    values = list(before) if isinstance(before, tuple) else [before] * sides
    values[one.side] = value
    return tuple(values)


Ask = Callable[[Point], float]
"""Returns the cost of a point; the less the better."""


def explore(way: str, axes: Sequence[Axis], ask: Ask, trials: int = 0, seed: int = 0) -> None:
    """Ask for the cost of points until the way through the ``axes`` ends.

    Args:
        way: one of :data:`WAYS`, or "" for a grid where all axes have steps, else random.
        axes: what is searched.
        ask: is called with each point.
        trials: the number of points; 0 for all of a grid, and :data:`TRIALS` otherwise.
        seed: the seed of random points.
    """
    chosen = way or ("grid" if all(one.step for one in axes) else "random")
    if chosen == "cma":
        _follow(axes, ask, trials or TRIALS, seed)
        return
    points = _grid(axes) if chosen == "grid" else _random(axes, trials or TRIALS, seed)
    for point in itertools.islice(points, trials or None):
        ask(point)


def _grid(axes: Sequence[Axis]) -> Iterator[Point]:
    for one in axes:
        if not one.step:
            raise UsageError(f"a grid needs a step: {one}:STEP", hint="or --search-by random")
    count = math.prod(one.count for one in axes)
    if count > _MOST:
        raise UsageError(f"a grid of {count} points is too large", hint="--search-by random --trials N")
    return itertools.product(*(one.values for one in axes))


def _random(axes: Sequence[Axis], trials: int, seed: int) -> Iterator[Point]:
    """Yield points without those that were drawn before, which axes with steps may repeat."""
    draw = random.Random(seed)
    seen: set[Point] = set()
    for _ in range(50 * trials):
        point = tuple(one.nearest(draw.uniform(one.low, one.high)) for one in axes)
        if point not in seen and len(seen) < trials:
            seen.add(point)
            yield point


def _follow(axes: Sequence[Axis], ask: Ask, trials: int, seed: int) -> None:
    """Follow the scores by CMA-ES, within a cube of one unit for each axis."""
    cma = _package()
    if len(axes) < 2:
        raise UsageError("CMA-ES takes two axes or more", hint="--search-by grid, or random")
    options = {"bounds": [0, 1], "seed": seed + 1, "verbose": -9, "maxfevals": trials}
    evolution = cma.CMAEvolutionStrategy([0.5] * len(axes), 0.25, options)
    asked = 0
    while asked < trials and not evolution.stop():
        cube = evolution.ask()
        points = [
            tuple(
                one.nearest(one.low + float(x) * (one.high - one.low))
                for one, x in zip(axes, row, strict=True)
            )
            for row in cube
        ]
        evolution.tell(cube, [ask(point) for point in points])
        asked += len(points)


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it wants matplotlib, for plots
            return importlib.import_module("cma")
    except ImportError as error:
        raise NotFoundError(
            "CMA-ES needs the package cma", hint="pip install cma, or --search-by random"
        ) from error
