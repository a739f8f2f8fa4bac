"""A strategy: the name of a side or a method, with parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from theta.dtypes import DTYPES
from theta.errors import UsageError, did_you_mean
from theta.merging.states import Conflict
from theta.merging.strategies import factor_names, parameter_text, parameters, registry
from theta.merging.strategies.parameter_text import Setting

SIDES: Final = ("ours", "theirs", "base")
_OF_PEFT: Final = (
    *("svd", "cat", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune", "magnitude_prune_svd"),
)
"""Types of the strategy ``peft`` whose names no other strategy has."""


@dataclass(frozen=True)
class Strategy:
    """The name of a side, or of a method with its parameters in order of name."""

    name: str
    parameters: tuple[tuple[str, Setting], ...] = ()

    def __str__(self) -> str:
        given = ",".join(f"{key}={parameter_text.text(value)}" for key, value in self.parameters)
        return f"{self.name}:{given}" if given else self.name

    @property
    def given(self) -> dict[str, Setting]:
        """The parameters by name."""
        return dict(self.parameters)

    @property
    def keeps_statistic(self) -> bool:
        """Whether the method keeps a statistic for the next merge."""
        return self.name not in SIDES and registry.method(self.name).keeps_statistic

    def side(self, name: str, count: int, absent: Sequence[int] = ()) -> int | None:
        """Return the number of the only side that tensor ``name`` depends on, from 0; None when it is none.

        ``absent`` are the numbers of sides that are not counted.  Raises :class:`UsageError` if there is no
        such side.
        """
        if self.name in SIDES:
            return {"ours": 0, "theirs": 1}.get(self.name)
        method = registry.method(self.name)
        if not method.one_side:
            return None
        found = method.only_side(self.resolve(name, 0.0, count))
        counted = [number for number in range(count) if number not in absent]
        if found is not None and found >= len(counted):
            raise UsageError(f"{self.name}: there is no input {found + 1} of {len(counted)}")
        return None if found is None else counted[found]

    def narrowed(self, conflict: Conflict) -> Conflict:
        """Return ``conflict`` with the only side that this depends on; itself if all count."""
        number = self.side(conflict.name, len(conflict.sides), conflict.absent)
        return conflict if number is None else replace(conflict, chosen=number)

    def takes(self, conflict: Conflict) -> bool:
        """Return whether the result is the only side of ``conflict``, which :meth:`narrowed` returned."""
        if conflict.chosen is None:
            return False
        values = self.resolve(conflict.name, 0.0, len(conflict.sides))
        return conflict.changed == (None,) or registry.method(self.name).takes_side(values)

    def applies(self, conflict: Conflict) -> bool:
        """Return whether this can settle ``conflict``."""
        return self.why_not(conflict) is None

    def why_not(self, conflict: Conflict) -> str | None:
        """Return a clause that says why this cannot settle ``conflict``; None when it can."""
        if self.name in SIDES:
            return None
        if conflict.coded is not None or conflict.reason:
            return conflict.reason or (conflict.coded.reason(conflict.name) if conflict.coded else "")
        conflict = self.narrowed(conflict)
        if self.takes(conflict):
            return None
        sides = conflict.changed
        lines = [side for side in sides if side is not None]
        if not lines:
            return "only taking a side settles it"
        if len(lines) < len(sides):
            return "a side deleted it"
        odd = next((line.dtype for line in lines if not is_averaged(line.dtype)), None)
        if odd is not None:
            return f"{odd} is never computed with"
        if self.name == factor_names.PEFT:
            return None if factor_names.is_factor(conflict.name) else "it is no factor of an adapter"
        if conflict.geometry is None:
            return f"shape or dtype differs: {_geometries(conflict)}"
        return self._why_not_method(conflict, len(lines))

    def _why_not_method(self, conflict: Conflict, count: int) -> str | None:
        method = registry.method(self.name)
        if method.needs_base and conflict.usable_base is None:
            return f"{self.name} needs a base, and there is none of this shape"
        if count < method.min_inputs or (method.max_inputs is not None and count > method.max_inputs):
            return f"{self.name} goes for {_numbers(method.min_inputs, method.max_inputs)} sides, not {count}"
        if self.given.get("use_base") and conflict.usable_base is None:
            return "use_base needs a base, and there is none of this shape"
        return None

    def resolve(self, name: str, position: float, count: int) -> dict[str, Any]:
        """Return the parameters for tensor ``name`` with ``count`` inputs.

        ``position`` is its relative depth in the layers, 0 to 1.
        """
        method = registry.method(self.name)
        given = self.given
        found = {p.name: p.resolve(given.get(p.name), name, position, count) for p in method.parameters}
        return dict(method.complete(found, count))


Policy = Callable[[Conflict], Strategy | None]
"""Returns the strategy for a conflict, or None to leave it."""


@dataclass(frozen=True)
class Info:
    """The description of a strategy, for menus and help."""

    name: str
    summary: str
    parameters: tuple[parameters.Parameter, ...]
    min_inputs: int
    max_inputs: int | None
    needs_base: bool


_SIDES_INFO: Final = {
    "ours": "our version",
    "theirs": "their version",
    "base": "the version from before both",
}


def describe(name: str) -> Info:
    """Return the description of strategy ``name``; loads it if it is a plug-in."""
    if name in _SIDES_INFO:
        return Info(name, _SIDES_INFO[name], (), 1, None, False)
    found = registry.method(name)
    return Info(name, found.summary, found.parameters, found.min_inputs, found.max_inputs, found.needs_base)


def is_averaged(dtype: str) -> bool:
    """Return whether values of ``dtype`` can be averaged: no integers, booleans, packed or opaque data."""
    return DTYPES[dtype].kind in ("float", "complex") and dtype != "f8_e8m0"


def parse(text: str) -> Strategy:
    """Parse text such as ``ours`` or ``ties:density=0.5,weight=[0.6,0.4]``; raises :class:`UsageError`."""
    name, _, options = text.strip().partition(":")
    return make(name, parameter_text.read(options))


def make(name: str, given: dict[str, Setting]) -> Strategy:
    """Return a strategy after checking its parameters, without defaults; raises :class:`UsageError`."""
    name = name.replace("-", "_")
    name = registry.ALIASES.get(name, name)
    if name in _OF_PEFT:
        name, given = factor_names.PEFT, {"type": name, **given}
    if name in SIDES:
        if given:
            raise UsageError(f"{name} has no parameters")
        return Strategy(name)
    if not registry.known(name):
        raise UsageError(
            f"unknown merge strategy {name!r}",
            hint=did_you_mean(name, [*registry.names(), *registry.ALIASES])
            or "ours, theirs, base, average, ties:density=0.5 ...",
        )
    found = parameters.checked(name, registry.method(name).parameters, given)
    if found.get("alpha") == 0.5 and name in ("average", "linear"):
        del found["alpha"]  # the same as no weights
    return Strategy(name, tuple(sorted(found.items())))


def _geometries(conflict: Conflict) -> str:
    """Return the dtype and shape of each side, such as ``ours f32 [4, 2], theirs f16 [4, 2]``."""
    names = ("ours", "theirs", *(f"theirs {number}" for number in range(2, len(conflict.sides))))
    pairs = zip(names, conflict.sides, strict=True)
    return ", ".join(f"{name} {side.dtype} {list(side.shape)}" for name, side in pairs if side is not None)


def _numbers(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(low) if low == high else f"{low} to {high}"
