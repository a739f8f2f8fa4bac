"""Parameters in recipes: scalars, gradients over the layers, and lists of ``filter`` and ``value``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from theta.errors import UsageError
from theta.merging.strategies import Strategy, make, registry
from theta.merging.strategies.parameter_text import Filtered, Setting, atom
from theta.merging.strategies.parameters import ParameterKind

_IDLE: Final = {"int8_mask": "theta never keeps masks"}
_IDLE_OF: Final = {
    "task_arithmetic": {
        "density": "task_arithmetic keeps all of each difference",
        "rescale": "task_arithmetic keeps all of each difference",
    }
}
"""Parameters that mergekit has for a method without using them."""
_FROM_BASE: Final = ("nuslerp", "multislerp")
"""Methods that merge differences if mergekit is given a base."""
_ROUNDED_LIKE: Final = ("linear",)
"""Methods that round in another way than mergekit by default."""
_DEFAULTS: Final = {("della", "density"): 1.0, ("della_linear", "density"): 1.0}
"""Defaults of mergekit that are not theta's."""
OF_AN_INPUT: Final = {("passthrough", "scale")}
"""Parameters of the whole that mergekit reads of the only input too."""
_SWITCHES: Final = dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "n", "f", "0"), False
)
"""Words for true and false, as pydantic reads them."""


def idle(method: str) -> Mapping[str, str]:
    """Return the parameters of ``method`` without an effect, and why."""
    return {**_IDLE, **_IDLE_OF.get(method, {})}


def parameters(found: Any, where: str, method: str) -> dict[str, Setting]:
    """Return the parameters in a mapping of YAML; raises :class:`UsageError`.

    Null and an empty list say nothing, as if the parameter were not there.
    """
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"{where}: not a mapping")
    none = idle(method)
    given = {str(key): value for key, value in found.items() if value is not None and value != []}
    return {key: _value(value, f"{where}: {key}") for key, value in given.items() if key not in none}


def over(own: Mapping[str, Setting], below: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return parameters over those of a wider level, which count where no filter matches."""
    return {**below, **{key: _over(value, below.get(key)) for key, value in own.items()}}


def of_inputs(
    method: str, shared: Mapping[str, Setting], own: Sequence[Mapping[str, Setting]], names: Sequence[str]
) -> tuple[dict[str, Setting], list[dict[str, Setting]]]:
    """Return parameters of all inputs, and those of each input for its tensor of these ``names``.

    As in mergekit the filters of what each input may have for itself see the name in the input's own model.
    """
    known = {one.name for one in registry.method(method).parameters if one.per_model}
    known |= {key for name, key in OF_AN_INPUT if name == method and len(own) == 1}
    each = {key: value for key, value in shared.items() if key in known}
    rest = {key: value for key, value in shared.items() if key not in known}
    return rest, [_at(over(one, each), name) for one, name in zip(own, names, strict=True)]


def _at(own: Mapping[str, Setting], name: str) -> dict[str, Setting]:
    found = {key: value.at(name) if isinstance(value, Filtered) else value for key, value in own.items()}
    return {key: value for key, value in found.items() if value is not None}


def _over(value: Setting, below: Setting | None) -> Setting:
    if below is None or not isinstance(value, Filtered) or any(part == "*" for part, _ in value.entries):
        return value
    return Filtered((*value.entries, *(below.entries if isinstance(below, Filtered) else (("*", below),))))


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
    defaults = {key: one.default for key, one in known.items()}
    defaults |= {key: value for (name, key), value in _DEFAULTS.items() if name == method}
    # A list for all models is a gradient; without the tuple it would be one value for each model.
    given: dict[str, Setting] = {
        key: (value,) if key in known and known[key].per_model else value for key, value in shared.items()
    }
    if method in _ROUNDED_LIKE:
        given.setdefault("variant", "mergekit")
    if based and method in _FROM_BASE:
        given.setdefault("use_base", True)
    given |= {key: value for (name, key), value in _DEFAULTS.items() if name == method and key not in given}
    for key in dict.fromkeys(key for one in own for key in one):
        if key in known and known[key].per_model:
            fallback = shared.get(key, defaults[key])
            given[key] = tuple(_over(one[key], fallback) if key in one else fallback for one in own)
        elif len(own) == 1 and (method, key) in OF_AN_INPUT:
            given[key] = _over(own[0][key], shared.get(key))
        else:
            raise UsageError(
                f"{label}: {key} is not a parameter of each model for {method}",
                hint="give it under the recipe's own parameters",
            )
    kinds = {key: one.kind for key, one in known.items()}
    return make(method, {key: _of_kind(value, kinds.get(key, "word")) for key, value in given.items()})


def _of_kind(value: Setting, kind: ParameterKind) -> Setting:
    """Return ``value`` as pydantic reads it: ``1e-3`` is a text for YAML, and 1 is true."""
    if isinstance(value, Filtered):
        return Filtered(tuple((part, _of_kind(inner, kind)) for part, inner in value.entries))
    if isinstance(value, tuple):
        return tuple(_of_kind(inner, kind) for inner in value)
    if kind == "switch" and not isinstance(value, bool):
        key = value.lower() if isinstance(value, str) else f"{value:g}"
        return _SWITCHES.get(key, value)
    if kind in ("number", "whole") and isinstance(value, bool):
        return float(value)
    return atom(value) if kind in ("number", "whole") and isinstance(value, str) else value
