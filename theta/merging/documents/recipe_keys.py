"""The keys that a document may have at each of its levels; one error lists all that are refused.

mergekit 0.1.5 ignores unknown keys.  A key that has no effect there either is accepted, with a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from theta.errors import UsageError, did_you_mean
from theta.merging.documents import recipe_values
from theta.merging.strategies import SIDES, registry

DTYPES: Final = ("out_dtype", "dtype")
"""Keys for the dtype of the result; theta computes in float32 (float64 for f64) whatever they say."""
_OF_DOCUMENT: Final = {
    *DTYPES,
    "name",
    "out_path",
    "merge_method",
    "base_model",
    "models",
    "slices",
    "modules",
    "parameters",
    "tokenizer",
    "tokenizer_source",
    "chat_template",
    "rules",
    "scope",
    "seed",
    "allow_nan",
}
_OF_SLICE: Final = {"sources", "parameters", "base_model", "residual_weight"}
_OF_MODEL: Final = {"model", "lora", "parameters"}
_OF_SOURCE: Final = {*_OF_MODEL, "layer_range"}
_OF_MODULE: Final = {"models", "slices", "parameters"}
_LEFT_ALONE: Final = ("parameters", "rules", "tokens")
IDLE: Final = {
    "residual_weight": "mergekit reads it nowhere",
    "override_architecture": "theta takes tensors by their names",
}
"""Keys beside parameters without an effect, and why."""


@dataclass(frozen=True)
class RefusedKey:
    """A key that a document may not have, the clause that says so, and what may stand in its place."""

    key: str
    told: str
    known: frozenset[str] = frozenset()


def check(bodies: Sequence[Mapping[str, Any]], label: str) -> None:
    """Raise :class:`UsageError` that lists all keys of all documents that would be ignored."""
    found = [one for body in bodies for one in _refused(plain(body))]
    if not found:
        return
    told = "; ".join(dict.fromkeys(one.told for one in found))
    near = next(filter(None, (did_you_mean(one.key, one.known) for one in found)), "")
    keys = dict.fromkeys(one.key for one in found)
    hint = f"'theta help merging' lists what may stand there; leave out {' and '.join(keys)}"
    raise UsageError(f"{label}: {told}", hint=near or hint)


def plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without keys that are null, and with the contents of its only module."""
    found: dict[str, Any] = {key: _plain(key, value) for key, value in body.items() if value is not None}
    modules = found.get("modules")
    if isinstance(modules, dict) and len(modules) == 1 and not found.keys() & {"models", "slices"}:
        (only,) = modules.values()
        if isinstance(only, dict) and only.keys() <= _OF_MODULE:
            shared = {**_mapping(found.get("parameters")), **_mapping(only.get("parameters"))}
            found = {**found, **only, **({"parameters": shared} if shared else {})}
            del found["modules"]
    return found


def _plain(key: str, value: Any) -> Any:
    if key in _LEFT_ALONE:
        return value
    if isinstance(value, dict):
        return {inner: _plain(str(inner), one) for inner, one in value.items() if one is not None}
    return [_plain("", one) for one in value] if isinstance(value, list) else value


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _refused(body: Mapping[str, Any]) -> Iterator[RefusedKey]:
    yield from _unknown(body, _OF_DOCUMENT, "")
    if "modules" in body:
        yield RefusedKey("modules", "modules is not supported: theta merges whole checkpoints")
    method = str(body.get("merge_method", "")).replace("-", "_")
    if method in SIDES or not registry.known(method):
        if "merge_method" in body:
            yield RefusedKey(method, f"unknown merge_method {method!r}", frozenset(registry.names()))
        method = ""
    yield from _of_parameters(body, method)
    for entry in _dicts(body.get("models")):
        yield from _unknown(entry, _OF_MODEL, " of a model")
        yield from _own(entry, method, len(body["models"]))
    for piece in _dicts(body.get("slices")):
        yield from _unknown(piece, _OF_SLICE, " of a slice")
        yield from _of_parameters(piece, method)
        for entry in _dicts(piece.get("sources")):
            yield from _unknown(entry, _OF_SOURCE, " of a model")
            yield from _own(entry, method, len(piece["sources"]))


def _unknown(found: Mapping[str, Any], known: set[str], where: str) -> Iterator[RefusedKey]:
    for key in found:
        if key not in known:
            yield RefusedKey(str(key), f"unknown key {key!r}{where}", frozenset(known))


def _of_parameters(found: Mapping[str, Any], method: str) -> Iterator[RefusedKey]:
    """Yield the parameters of all models that ``method`` has not."""
    known = _parameters(method)
    for key in _mapping(found.get("parameters")) if method else ():
        if key not in known and key not in recipe_values.idle(method):
            yield RefusedKey(str(key), f"{method} has no parameter {key!r}", frozenset(known))


def _own(found: Mapping[str, Any], method: str, count: int) -> Iterator[RefusedKey]:
    """Yield the parameters of one of ``count`` models that it cannot have for itself."""
    known = _parameters(method)
    for key in _mapping(found.get("parameters")) if method else ():
        alone = count == 1 and (method, key) in recipe_values.OF_AN_INPUT
        if key in recipe_values.idle(method) or known.get(key) or alone:
            continue
        if key in known:
            yield RefusedKey(str(key), f"{key} is not a parameter of each model for {method}")
        else:
            yield RefusedKey(str(key), f"{method} has no parameter {key!r}", frozenset(known))


def _parameters(method: str) -> dict[str, bool]:
    """Return the parameters of ``method`` -> whether each model may have its own."""
    found = registry.method(method).parameters if method else ()
    return {one.name: one.per_model for one in found}
