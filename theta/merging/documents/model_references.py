"""References to models in a document: a name, or a mapping of mergekit, with or without an adapter.

mergekit's ``ModelReference`` is ``MODEL``, ``MODEL+LORA``, or ``{model: MODEL, lora: LORA}``, where each of
both is a name or ``{path: PATH, revision: REVISION}``; an entry of ``models`` may have ``lora`` beside its
``model``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from theta.errors import UsageError
from theta.merging.documents.tokenizer_keys import BASE, UNION

_NAMED: Final = ("model", "base_model", "tokenizer_source", "source")
"""The keys whose values are models, wherever they stand in a document, but in these:"""
_OTHERS: Final = ("rules", "parameters")
_BY_NAME: Final = ("tokens", "modules")
"""Mappings whose keys are names."""
_FORMS: Final = "a model is REVISION, REVISION:PATH, or {model: REVISION, lora: ADAPTER}"


@dataclass(frozen=True)
class ModelReference:
    """A model, or a model with an adapter that is folded into it.

    Attributes:
        base: the name of the model.
        adapter: the name of the adapter, or None; then ``base`` may still stand for both.
    """

    base: str
    adapter: str | None = None

    @property
    def key(self) -> str:
        """The name of both."""
        return self.base if self.adapter is None else f"{self.base}+{self.adapter}"


def replaced(body: Mapping[str, Any], label: str, by: Callable[[ModelReference], object]) -> dict[str, Any]:
    """Return a document with ``by(reference)`` in place of each reference.

    Raises :class:`UsageError` that names ``label`` for a mapping that is none.
    """
    return {key: _replaced(key, value, label, by) for key, value in body.items()}


def _replaced(key: str, value: Any, label: str, by: Callable[[ModelReference], object]) -> Any:
    if key in _OTHERS:
        return value
    if key in _NAMED and _is_reference(key, value):
        return by(_parsed(value, label))
    if isinstance(value, list):
        return [_replaced("", _with_adapter(one, label), label, by) for one in value]
    if isinstance(value, dict):
        names = key in _BY_NAME
        return {inner: _replaced("" if names else inner, one, label, by) for inner, one in value.items()}
    return value


def _is_reference(key: str, value: Any) -> bool:
    is_word = key in ("tokenizer_source", "source") and value in (UNION, BASE)
    return (isinstance(value, str) and not is_word) or (isinstance(value, dict) and "kind" not in value)


def _with_adapter(entry: Any, label: str) -> Any:
    """Return an entry of ``models`` or ``sources`` with the adapter beside ``model`` as a part of that."""
    if not isinstance(entry, dict) or "lora" not in entry:
        return entry
    if "model" not in entry or (isinstance(entry["model"], dict) and "lora" in entry["model"]):
        raise UsageError(f"{label}: lora stands beside a model that has no other")
    inner = entry["model"] if isinstance(entry["model"], dict) else {"model": entry["model"]}
    rest = {key: value for key, value in entry.items() if key != "lora"}
    return {**rest, "model": {**inner, "lora": entry["lora"]}}


def _parsed(found: Any, label: str) -> ModelReference:
    if isinstance(found, str):
        return ModelReference(found)
    if "path" in found:
        found = {"model": {key: found[key] for key in found if key != "lora"}, "lora": found.get("lora")}
    if extra := set(found) - {"model", "lora", "override_architecture"}:
        raise UsageError(f"{label}: unknown key {min(map(str, extra))!r} of a model", hint=_FORMS)
    adapter = found.get("lora")
    return ModelReference(
        _path(found.get("model"), label), None if adapter is None else _path(adapter, label)
    )


def _path(found: Any, label: str) -> str:
    """Return the name in a ``ModelPath``: ``{path: PATH, revision: REVISION}`` is ``REVISION:PATH``."""
    if isinstance(found, dict) and set(found) <= {"path", "revision"} and isinstance(found.get("path"), str):
        revision, path = found.get("revision"), found["path"]
        if revision is None or isinstance(revision, str):
            return path if revision is None else f"{revision}:{path}"
    if isinstance(found, str) and found:
        return found
    raise UsageError(f"{label}: {_FORMS}", hint="or {path: PATH, revision: REVISION} for each of both")
