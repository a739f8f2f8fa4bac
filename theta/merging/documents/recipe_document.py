"""One document of a recipe file: what mergekit merges into one model.

The models of a recipe are the frames of its result, one above the other: ``slices``, each with layers of
its sources, or a single frame of whole models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from theta.errors import UsageError, did_you_mean
from theta.merging import recipes
from theta.merging.documents import model_references, recipe_keys, recipe_values, tokenizer_keys
from theta.merging.documents.model_references import ModelReference
from theta.merging.documents.tokenizer_keys import TokenizerKey
from theta.merging.recipes import Rule
from theta.merging.strategies import SIDES, Strategy, registry
from theta.merging.strategies.parameter_text import Setting

PAIRS: Final = ("slerp", "nearswap", "arcee_fusion")
"""Methods with two inputs, the first of which is mergekit's base."""
_APART: Final = ("nuslerp", "multislerp")
"""Methods that need no base, of which the base is no input."""


@dataclass(frozen=True)
class RecipeSource:
    """A model that a frame is made of.

    Attributes:
        model: its name in the recipe.
        parameters: its own parameters.
        layers: its first layer, and that after its last; None for a whole model.
    """

    model: str
    parameters: Mapping[str, Setting]
    layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Frame:
    """Layers of the result that are merged from the same layers of its inputs.

    Attributes:
        inputs: the models that are merged, in the order in which the method sees them.
        base: the model that the method compares with, or None.
        shared: the parameters of all inputs.
    """

    inputs: tuple[RecipeSource, ...]
    base: RecipeSource | None
    shared: Mapping[str, Setting]

    @property
    def sources(self) -> tuple[RecipeSource, ...]:
        """The inputs and the base."""
        return (*self.inputs, *filter(None, [self.base]))


@dataclass(frozen=True)
class Document:
    """A parsed document.

    Attributes:
        label: the name of the file, for errors.
        name: the name by which other documents use the result; "" for none.
        method: the merge method.
        frames: the frames of the result, first layers first.
        base: ``base_model``, or None.
        shared: the parameters of all frames.
        rules: strategies of single tensors.
        scope: ``conflicts`` or ``all``.
        seed: the seed of random methods.
        allow_nan: accept new NaNs and infinities.
        dtype: the dtype of all floats of the result, or None.
        notes: keys that have no effect, and why.
        tokenizer: the tokenizer of the result, or None for that of the first model.
        chat_template: the text of a template, ``auto``, or empty for that of the tokenizer.
        adapters: the names of models that have an adapter folded in -> the model and the adapter.
    """

    label: str
    name: str
    method: str
    frames: tuple[Frame, ...]
    base: str | None
    shared: Mapping[str, Setting]
    rules: tuple[Rule, ...] = ()
    scope: str = "all"
    seed: int = 0
    allow_nan: bool = False
    dtype: str | None = None
    notes: tuple[str, ...] = ()
    tokenizer: TokenizerKey | None = None
    chat_template: str = ""
    adapters: Mapping[str, ModelReference] = field(default_factory=dict)

    @property
    def is_sliced(self) -> bool:
        """Whether the result is made of ranges of layers."""
        return self.frames[0].inputs[0].layers is not None

    @property
    def models(self) -> tuple[str, ...]:
        """All models that the document names, that of its configuration first."""
        named = (source.model for frame in self.frames for source in frame.sources)
        tokens = self.tokenizer.models if self.tokenizer is not None else ()
        return tuple(dict.fromkeys([*filter(None, [self.base]), *named, *tokens]))

    def strategy(self, frame: Frame, numbers: Sequence[int], names: Sequence[str] = ()) -> Strategy:
        """Return the strategy of ``frame`` for its inputs with these ``numbers``.

        ``names`` are those of the tensor in all inputs, by which their own parameters are filtered: in a
        stack of layers they are others than that in the result.
        """
        shared: Mapping[str, Setting] = frame.shared
        own: Sequence[Mapping[str, Setting]] = [frame.inputs[number].parameters for number in numbers]
        if names and self.is_sliced:
            own_names = [names[number] for number in numbers]
            shared, own = recipe_values.of_inputs(self.method, shared, own, own_names)
        based = self.base is not None and self.method not in PAIRS
        return recipe_values.strategy(self.method, shared, own, self.label, based=based)


def parse(body: Mapping[str, Any], label: str) -> Document:
    """Parse a document whose keys are checked; raises :class:`UsageError` that names the file and the key."""
    given = body = recipe_keys.plain(body)
    adapters: dict[str, ModelReference] = {}

    def named(one: ModelReference) -> str:
        if one.adapter is not None and adapters.setdefault(one.key, one) != one:
            raise UsageError(f"{label}: {one.key} is two models with adapters")
        return one.key

    body = model_references.replaced(body, label, named)
    method = str(need(body, "merge_method", label)).replace("-", "_")
    if method in SIDES or not registry.known(method):
        hint = did_you_mean(method, registry.names()) or "'theta help merging' lists them"
        raise UsageError(f"{label}: unknown merge_method {method!r}", hint=hint)
    base = need(body, "base_model", label) if "base_model" in body else None
    idle = {**recipe_keys.IDLE, **recipe_values.idle(method)}
    shared = recipe_values.parameters(body.get("parameters"), f"{label}: parameters", method)
    name = str(body.get("name") or body.get("out_path") or "")
    return Document(
        label,
        name,
        method,
        tuple(_frames(body, label, method, base, shared)),
        base,
        shared,
        tuple(_rules(body.get("rules"), label)),
        str(body.get("scope", "all")),
        recipes.seed(str(body.get("seed", 0))),
        _flag(body, "allow_nan", label),
        _dtype(body, label),
        tuple(f"{label}: {key} has no effect: {why}" for key, why in idle.items() if _names(given, key)),
        tokenizer_keys.parse(body, label),
        tokenizer_keys.template(body, label),
        adapters,
    )


# -- frames ----------------------------------------------------------------------------------


def _frames(
    body: Mapping[str, Any], label: str, method: str, base: str | None, shared: Mapping[str, Setting]
) -> Iterator[Frame]:
    if ("models" in body) == ("slices" in body):
        raise UsageError(f"{label}: give models, or slices")
    if "models" in body:
        yield _frame(_sources(body["models"], label, method, sliced=False), label, method, base, shared)
        return
    if not isinstance(body["slices"], list) or not body["slices"]:
        raise UsageError(f"{label}: slices is a list")
    for entry in body["slices"]:
        if not isinstance(entry, dict) or "sources" not in entry:
            raise UsageError(f"{label}: each of the slices has 'sources'")
        own = recipe_values.parameters(entry.get("parameters"), f"{label}: parameters of a slice", method)
        own_base = need(entry, "base_model", label) if "base_model" in entry else base
        yield _frame(
            _sources(entry["sources"], label, method, sliced=True),
            label,
            method,
            own_base,
            recipe_values.over(own, shared),
        )


def _sources(found: Any, label: str, method: str, *, sliced: bool) -> list[RecipeSource]:
    what = "sources" if sliced else "models"
    if not isinstance(found, list):
        raise UsageError(f"{label}: {what} is a list")
    sources = []
    for entry in found:
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            raise UsageError(f"{label}: each of the {what} has 'model: REVISION'")
        where = f"{label}: parameters of {entry['model']}"
        layers = _range(entry.get("layer_range"), label) if sliced else None
        own = recipe_values.parameters(entry.get("parameters"), where, method)
        sources.append(RecipeSource(entry["model"], own, layers))
    if not sources:
        raise UsageError(f"{label}: there are no models to merge")
    if len({source.model for source in sources}) < len(sources):
        raise UsageError(f"{label}: a model is named twice" + " in a slice" * sliced)
    counts = {source.layers[1] - source.layers[0] for source in sources if source.layers is not None}
    if len(counts) > 1:
        raise UsageError(f"{label}: all sources of a slice have the same number of layers")
    return sources


def _range(found: Any, label: str) -> tuple[int, int]:
    if isinstance(found, list) and len(found) == 2 and all(type(number) is int for number in found):
        first, end = found
        if 0 <= first < end:
            return first, end
    raise UsageError(f"{label}: layer_range is [FIRST, END], from 0, and END is not part of it")


def _frame(
    sources: list[RecipeSource], label: str, method: str, base: str | None, shared: Mapping[str, Setting]
) -> Frame:
    """Return the frame with the base removed from the inputs, or first if it is an input of the method."""
    listed = next((source for source in sources if source.model == base), None)
    whole = sources[0].layers is None
    if base is None:
        return Frame(tuple(sources), None, shared)
    if method in PAIRS:
        first = listed or (RecipeSource(base, {}) if whole and len(sources) == 1 else None)
        others = [source for source in sources if source is not listed]
        return Frame((*filter(None, [first]), *others), None, shared)
    if not (registry.method(method).needs_base or registry.method(method).uses_base or method in _APART):
        return Frame(tuple(sources), RecipeSource(base, {}) if whole else None, shared)
    if listed is None and not whole:
        raise UsageError(
            f"{label}: {base} is no source of a slice, so that {method} has no base there",
            hint="list it with its layer_range",
        )
    inputs = [source for source in sources if source is not listed]
    if not inputs:
        raise UsageError(f"{label}: there are no models to merge")
    return Frame(tuple(inputs), listed or RecipeSource(base, {}), shared)


# -- other keys ------------------------------------------------------------------------------


def need(body: Mapping[str, Any], key: str, label: str) -> str:
    """Return the text of ``key``; raises :class:`UsageError` if there is none."""
    found = body.get(key)
    if not isinstance(found, str):
        raise UsageError(f"{label}: {key} is missing or not a text")
    return found


def _dtype(body: Mapping[str, Any], label: str) -> str | None:
    """Return the dtype of the result, ``out_dtype`` before ``dtype``; None when the recipe has neither."""
    key = next((key for key in recipe_keys.DTYPES if body.get(key) is not None), None)
    return recipes.dtype(need(body, key, label)) if key is not None else None


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
