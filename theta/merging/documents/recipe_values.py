"""Parameters in recipes: scalars, gradients over the layers, and lists of ``filter`` and ``value``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from theta.errors import UsageError
from theta.merging.strategies import Strategy, make, registry
from theta.merging.strategies.parameter_text import Filtered, Setting

IDLE: Final = {"int8_mask": "theta never keeps masks"}
"""Parameters without an effect, and why."""
_FROM_BASE: Final = ("nuslerp", "multislerp")
"""Methods that merge differences if mergekit is given a base."""
_ROUNDED_LIKE: Final = ("linear",)
"""Methods that round in another way than mergekit by default."""
_OF_AN_INPUT: Final = {("passthrough", "scale")}
"""Parameters of the whole that mergekit reads of the only input too."""


def parameters(found: Any, where: str) -> dict[str, Setting]:
    """Return the parameters in a mapping of YAML; raises :class:`UsageError`."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"{where}: not a mapping")
    return {str(key): _value(value, f"{where}: {key}") for key, value in found.items() if key not in IDLE}


def _value(found: Any, where: str) -> Setting:
    """Parse a scalar, a gradient, or a list of filters."""
    if isinstance(found, bool | str):
        return found
    if isinstance(found, int | float):
        return float(found)
    if isinstance(found, dict):
        return Filtered((_filtered(found, where),))
    if isinstance(found, list) and found:
        if any(isinstance(entry, dict) for entry in found):
            return Filtered(tuple(_filtered(entry, where) for entry in found))
        return tuple(_value(entry, where) for entry in found)
    raise UsageError(f"{where}: a number, true or false, a gradient, or a list of filter and value")


def _filtered(entry: Any, where: str) -> tuple[str, Setting]:
    if not isinstance(entry, dict):  # a plain value applies to all other tensors
        return "*", _value(entry, where)
    if not set(entry) <= {"filter", "value"} or "value" not in entry:
        raise UsageError(f"{where}: each entry has 'filter' and 'value'")
    return str(entry.get("filter") or "*"), _value(entry["value"], where)


def strategy(
    method: str,
    shared: Mapping[str, Setting],
    own: Sequence[Mapping[str, Setting]],
    label: str,
    *,
    based: bool = False,
) -> Strategy:
    """Return the strategy for inputs with the parameters ``own``, below which are those of all, ``shared``.

    ``based``: the recipe names a base.  Raises :class:`UsageError` for parameters that make no sense.
    """
    known = {one.name: one for one in registry.method(method).parameters}
    # A list for all models is a gradient; without the tuple it would be one value for each model.
    given: dict[str, Setting] = {
        key: (value,) if key in known and known[key].per_model else value for key, value in shared.items()
    }
    if method in _ROUNDED_LIKE:
        given.setdefault("variant", "mergekit")
    if based and method in _FROM_BASE:
        given.setdefault("use_base", True)
    for key in dict.fromkeys(key for one in own for key in one):
        if key in known and known[key].per_model:
            fallback = shared.get(key, known[key].default)
            given[key] = tuple(one.get(key, fallback) for one in own)
        elif len(own) == 1 and (method, key) in _OF_AN_INPUT:
            given[key] = own[0][key]
        else:
            raise UsageError(
                f"{label}: {key} is not a parameter of each model for {method}",
                hint="give it under the recipe's own parameters",
            )
    return make(method, given)
