"""Recipe files: YAML with keys of mergekit and of theta.

mergekit's are ``merge_method``, ``base_model``, ``models`` (or one slice over whole models), and
``parameters`` of all and of each model, which are scalars, gradients over the layers, or lists of
``filter`` and ``value``.  theta's are ``rules``, ``scope``, ``seed`` and ``allow_nan``.  Other keys are
errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from theta.errors import NotFoundError, UsageError, did_you_mean
from theta.merging import recipes
from theta.merging.recipes import Recipe, Rule
from theta.merging.strategies import SIDES, make, registry
from theta.merging.strategies.parameter_text import Filtered, Setting

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES: Final = 1 << 20
_MAX_NODES: Final = 20_000
_MAX_DEPTH: Final = 20
_PAIRS: Final = ("slerp", "nearswap", "arcee_fusion")
"""Methods with two inputs, the first of which is mergekit's base."""
_FROM_BASE: Final = ("nuslerp", "multislerp")
"""Methods that merge differences if mergekit is given a base."""

_REFUSED: Final = {
    "tokenizer": "theta merges checkpoints, not tokenizers",
    "tokenizer_source": "theta merges checkpoints, not tokenizers",
    "chat_template": "theta merges checkpoints, not tokenizers",
    "modules": "theta merges whole checkpoints",
}
_DTYPES: Final = ("out_dtype", "dtype")
"""Keys for the dtype of the result; theta computes in float32 (float64 for f64) whatever they say."""
_IDLE: Final = {"int8_mask": "theta never keeps masks"}
"""Parameters without an effect, and why."""
_KEYS: Final = {
    *_DTYPES,
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "rules",
    "scope",
    "seed",
    "allow_nan",
}


@dataclass(frozen=True)
class _Model:
    name: str
    parameters: Mapping[str, Setting]


@dataclass(frozen=True)
class RecipeFile:
    """A parsed recipe file.

    Attributes:
        label: the name of the file, for errors.
        method: the merge method.
        models: the revisions of the inputs in the file's order, without the base.
        base: the revision of ``base_model``; None for the merge base.
        shared: the parameters of all models.
        own: the parameters of each model.
        rules: strategies of single tensors.
        scope: ``conflicts`` or ``all``.
        seed: the seed of random methods.
        allow_nan: accept new NaNs and infinities.
        dtype: the dtype of all floats of the result, or None.
        notes: keys that have no effect, and why.
    """

    label: str
    method: str
    models: tuple[str, ...]
    base: str | None
    shared: Mapping[str, Setting]
    own: tuple[Mapping[str, Setting], ...]
    rules: tuple[Rule, ...] = ()
    scope: str = "conflicts"
    seed: int = 0
    allow_nan: bool = False
    dtype: str | None = None
    notes: tuple[str, ...] = ()

    def recipe(self, order: Sequence[int | None] | None = None) -> Recipe:
        """Return the recipe for inputs in the order of the merge.

        Args:
            order: for each side of the merge, ours first, its number in :attr:`models`; None for a
                side that the recipe does not name, such as ours when two other branches are merged.
        """
        places: list[int | None] = list(range(len(self.models))) if order is None else list(order)
        if sorted(place for place in places if place is not None) != list(range(len(self.models))):
            raise UsageError(
                f"{self.label} names {len(self.models)} models and the merge has {len(places)} sides",
                hint=f"merge {' '.join(self.models)}",
            )
        known = {p.name: p for p in registry.method(self.method).parameters}
        # A list for all models is a gradient; without the tuple it would be one value for each model.
        given: dict[str, Setting] = {
            key: (value,) if key in known and known[key].per_model else value
            for key, value in self.shared.items()
        }
        if self.base is not None and self.method in _FROM_BASE:
            given.setdefault("use_base", True)
        for key in dict.fromkeys(key for own in self.own for key in own):
            given[key] = self._per_model(key, places)
        return Recipe(
            make(self.method, given),
            self.rules,
            recipes.scope(self.scope),
            self.seed,
            self.allow_nan,
            tuple(number for number, place in enumerate(places) if place is None),
            self.dtype,
        )

    def _per_model(self, key: str, places: Sequence[int | None]) -> Setting:
        """Return one value for each side: that of the model, else that of all models, else the default."""
        known = {p.name: p for p in registry.method(self.method).parameters}
        if key not in known or not known[key].per_model:
            raise UsageError(
                f"{self.label}: {key} is not a parameter of each model for {self.method}",
                hint="give it under the recipe's own parameters",
            )
        fallback = self.shared.get(key, known[key].default)
        return tuple(fallback if n is None else self.own[n].get(key, fallback) for n in places)


def read(place: str) -> RecipeFile:
    """Read the recipe file at ``place``; raises :class:`NotFoundError` and :class:`UsageError`."""
    try:
        data = Path(place).read_bytes()
    except OSError as error:
        raise NotFoundError(f"cannot read the recipe {place}: {error.strerror}") from error
    return load(data, place)


def load(data: bytes, label: str) -> RecipeFile:
    """Parse the YAML file called ``label``; raises :class:`UsageError` that names file and key."""
    body = _parsed(data, label)
    refused = [key for key in body if key in _REFUSED]
    if refused:
        reasons = "; ".join(f"{key} is not supported: {_REFUSED[key]}" for key in refused)
        raise UsageError(f"{label}: {reasons}", hint=f"leave out {' and '.join(refused)}")
    for key in body:
        if key not in _KEYS:
            raise UsageError(
                f"{label}: unknown key {key!r}",
                hint=did_you_mean(str(key), _KEYS) or f"known keys: {', '.join(sorted(_KEYS))}",
            )
    method = str(_need(body, "merge_method", str, label)).replace("-", "_")
    if method in SIDES or not registry.known(method):
        hint = did_you_mean(method, registry.names()) or "'theta help merging' lists them"
        raise UsageError(f"{label}: unknown merge_method {method!r}", hint=hint)
    models = list(_models(body, label))
    base = _need(body, "base_model", str, label) if "base_model" in body else None
    return _arranged(body, label, method, models, base)


def _arranged(
    body: Mapping[str, Any], label: str, method: str, models: list[_Model], base: str | None
) -> RecipeFile:
    """Return the recipe with the base removed from the inputs, or first if it is an input of the method."""
    if base is not None and method in _PAIRS:
        models.sort(key=lambda model: model.name != base)
        if len(models) == 1:
            models.insert(0, _Model(base, {}))
        base = None
    else:
        models = [model for model in models if model.name != base]
    if not models:
        raise UsageError(f"{label}: there are no models to merge")
    if len({model.name for model in models}) < len(models):
        raise UsageError(f"{label}: a model is named twice")
    return RecipeFile(
        label,
        method,
        tuple(model.name for model in models),
        base,
        _parameters(body.get("parameters"), f"{label}: parameters"),
        tuple(model.parameters for model in models),
        tuple(_rules(body.get("rules"), label)),
        str(body.get("scope", "all")),
        recipes.seed(str(body.get("seed", 0))),
        _flag(body, "allow_nan", label),
        _dtype(body, label),
        tuple(f"{label}: {key} has no effect: {_IDLE[key]}" for key in _IDLE if _names(body, key)),
    )


def _dtype(body: Mapping[str, Any], label: str) -> str | None:
    """Return the dtype of the result, ``out_dtype`` before ``dtype``; None when the recipe has neither."""
    key = next((key for key in _DTYPES if body.get(key) is not None), None)
    return recipes.dtype(str(_need(body, key, str, label))) if key is not None else None


def _names(body: Any, key: str) -> bool:
    """Return whether ``key`` is given anywhere in the document."""
    if isinstance(body, dict):
        return key in body or any(_names(value, key) for value in body.values())
    return isinstance(body, list) and any(_names(value, key) for value in body)


def _flag(body: Mapping[str, Any], key: str, label: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise UsageError(f"{label}: {key} is true or false")
    return value


def _rules(found: Any, label: str) -> Iterator[Rule]:
    """Yield the rules of ``rules: {GLOB: STRATEGY}`` in the order of the file."""
    if found is None:
        return
    if not isinstance(found, dict):
        raise UsageError(f"{label}: rules is a mapping of globs to strategies")
    for glob, strategy in found.items():
        yield recipes.rule(f"{glob}={strategy}")


# -- models ----------------------------------------------------------------------------------


def _models(body: Mapping[str, Any], label: str) -> Iterator[_Model]:
    if ("models" in body) == ("slices" in body):
        raise UsageError(f"{label}: give models, or one slice over whole models")
    entries = body["models"] if "models" in body else _whole_slice(body["slices"], label)
    if not isinstance(entries, list):
        raise UsageError(f"{label}: models is a list")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            raise UsageError(f"{label}: each of the models has 'model: REVISION'")
        extra = set(entry) - {"model", "parameters", "layer_range"}
        if extra:
            raise UsageError(f"{label}: unknown key {min(extra)!r} of a model")
        where = f"{label}: parameters of {entry['model']}"
        yield _Model(entry["model"], _parameters(entry.get("parameters"), where))


def _whole_slice(slices: Any, label: str) -> Any:
    """Return the sources of the only slice; all must have the same layer_range from 0."""
    refusal = UsageError(
        f"{label}: theta merges whole models, not slices of layers",
        hint="use models, or one slice whose sources have the same layer_range from 0",
    )
    if not isinstance(slices, list) or len(slices) != 1 or not isinstance(slices[0], dict):
        raise refusal
    sources = slices[0].get("sources")
    if set(slices[0]) - {"sources"} or not isinstance(sources, list):
        raise refusal
    ranges = [source.get("layer_range") for source in sources if isinstance(source, dict)]
    if any(found != ranges[0] or not _from_start(found) for found in ranges):
        raise refusal
    return sources


def _from_start(found: Any) -> bool:
    return isinstance(found, list) and len(found) == 2 and found[0] == 0 and isinstance(found[1], int)


# -- values ----------------------------------------------------------------------------------


def _parameters(found: Any, where: str) -> dict[str, Setting]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"{where}: not a mapping")
    return {str(key): _value(value, f"{where}: {key}") for key, value in found.items() if key not in _IDLE}


def _value(found: Any, where: str) -> Setting:
    """Parse a scalar, a gradient, or a list of filters."""
    if isinstance(found, bool | str):
        return found
    if isinstance(found, int | float):
        return float(found)
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


def _need(body: Mapping[str, Any], key: str, kind: type, label: str) -> Any:
    if not isinstance(body.get(key), kind):
        raise UsageError(f"{label}: {key} is missing or not a text")
    return body[key]


# -- YAML ------------------------------------------------------------------------------------


def _parsed(data: bytes, label: str) -> dict[str, Any]:
    """Parse a YAML mapping of plain values; size, aliases and duplicate keys are checked."""
    import yaml

    if len(data) > MAX_BYTES:
        raise UsageError(f"{label}: a recipe of {len(data)} bytes is over the limit of {MAX_BYTES}")
    try:
        text = data.decode("utf-8")
        _check_events(yaml.parse(text, Loader=yaml.SafeLoader), label, yaml)
        body = _strict(yaml.compose(text, Loader=yaml.SafeLoader), label, yaml) and yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{label}: not a YAML file: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(body, dict):
        raise UsageError(f"{label}: a recipe is a mapping", hint="merge_method: linear")
    return body


def _check_events(events: Iterable[Any], label: str, yaml: Any) -> None:
    """Raise :class:`UsageError` for documents that are expensive to load, before loading them."""
    depth = 0
    for count, event in enumerate(events):
        # Nested aliases expand a few lines to gigabytes.
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{label}: aliases (*{event.anchor}) are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count > _MAX_NODES or depth > _MAX_DEPTH:
            raise UsageError(
                f"{label}: a recipe has at most {_MAX_NODES} values, nested {_MAX_DEPTH} deep at most"
            )


def _strict(node: Any, label: str, yaml: Any) -> bool:
    """Return whether the document is not empty; raises :class:`UsageError` for a duplicate key."""
    waiting = [node]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, yaml.MappingNode):
            keys = [key.value for key, _ in entry.value]
            if len({str(key) for key in keys}) < len(keys):
                raise UsageError(f"{label}: a key stands twice on line {entry.start_mark.line + 1}")
            waiting += [value for _, value in entry.value]
        elif isinstance(entry, yaml.SequenceNode):
            waiting += entry.value
    return node is not None
