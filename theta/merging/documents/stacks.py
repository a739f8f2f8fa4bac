"""Stacks of layers: which tensors of a result are made from which tensors of the models.

Layers are renumbered from 0.  Of what is in no layer, embeddings come from the first frame and everything
else, such as the last norm and the head, from the last one, as mergekit's architectures have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from theta.errors import UsageError
from theta.merging import depth
from theta.merging.documents.model_files import ModelFiles
from theta.merging.documents.recipe_document import Document, Frame, RecipeSource
from theta.store.format.manifest import Line

_IN_LAYER: Final = re.compile(r"((?:[^./]+[./])*?(?:[^./]*_)?)([0-9]{1,6})([./].+)")
"""A name with a number as one of its parts, or at the end of one: prefix, number, rest."""
_FIRST: Final = re.compile(
    r"(.*[./])?(embed\w*|wte|wpe|embd|tok_embeddings|tokens_embed|token_embd|position_embd|word_embeddings\w*"
    r"|shared|emb|rotary\w*|project_in|layernorm_pre|ln_pre|patch_\w+|class_embedding|pos_embed\w*)([./].*)?"
)
"""Names of tensors before the layers."""
_HEADS: Final = re.compile(r"(.*[./])?embed_out([./].*)?")


@dataclass(frozen=True)
class ResultTensor:
    """A tensor of the result.

    Attributes:
        name: its name in the result.
        inputs: for each input of the frame its tensor, called ``name``, or None.
        base: the tensor of the base, or None.
        frame: how the inputs are merged.
        names: for each input the name of its tensor in its own model, which filters of its parameters see.
        position: the relative depth, for gradients.
        place: the file in which the first of the inputs has it.
    """

    name: str
    inputs: tuple[Line | None, ...]
    base: Line | None
    frame: Frame
    position: float
    place: str
    names: tuple[str, ...] = ()


_MOST_LAYERS: Final = 10_000


class _Layers:
    """The one stack of layers of a model."""

    def __init__(self, model: ModelFiles) -> None:
        self.model = model
        stacks: dict[str, dict[int, dict[str, str]]] = {}
        self.outside: list[str] = []
        for name in model.lines:
            found = _IN_LAYER.fullmatch(name)
            if found is None:
                self.outside.append(name)
            else:
                stacks.setdefault(found[1], {}).setdefault(int(found[2]), {})[found[3]] = name
        sizes = sorted((len(layers) for layers in stacks.values()), reverse=True)
        if not sizes or (len(sizes) > 1 and sizes[0] == sizes[1]):
            told = f"several stacks of layers ({', '.join(sorted(stacks))})" if sizes else "no layers"
            raise UsageError(f"{model.label} has {told}, and a slice takes layers of one stack")
        self.prefix = max(stacks, key=lambda prefix: len(stacks[prefix]))
        self.layers = stacks.pop(self.prefix)
        if self.count != len(self.layers):
            gap = next(number for number in range(self.count) if number not in self.layers)
            raise UsageError(f"{model.label} has layers up to {self.count - 1}, and no layer {gap}")
        self.outside += [name for other in stacks.values() for by in other.values() for name in by.values()]

    @property
    def count(self) -> int:
        """The number of layers."""
        return max(self.layers) + 1

    def layer(self, source: RecipeSource, offset: int) -> Mapping[str, str]:
        """Return rest of the name -> tensor, of the layer at ``offset`` of the range of ``source``."""
        assert source.layers is not None
        number = source.layers[0] + offset
        if source.layers[1] > self.count:
            told = f"{self.model.label} has {self.count} layers, and layer_range {list(source.layers)}"
            raise UsageError(f"{told} is not in it")
        return self.layers.get(number, {})


def layer_count(model: ModelFiles) -> int:
    """Return the number of layers of ``model``; raises :class:`UsageError` if it has no one stack."""
    return _Layers(model).count


def arranged(document: Document, models: Mapping[str, ModelFiles]) -> list[ResultTensor]:
    """Return the tensors of the result of ``document``; raises :class:`UsageError` for impossible slices."""
    found = _sliced(document, models) if document.is_sliced else _whole(document.frames[0], models)
    return list(found)


def origins(document: Document) -> list[tuple[str, int]]:
    """Return the model and the number of its layer that each layer of a result of slices is made from."""
    firsts = [frame.inputs[0] for frame in document.frames]
    return [(one.model, number) for one in firsts if one.layers is not None for number in range(*one.layers)]


# -- whole models ----------------------------------------------------------------------------


def _whole(frame: Frame, models: Mapping[str, ModelFiles]) -> Iterator[ResultTensor]:
    names = dict.fromkeys(name for source in frame.sources for name in models[source.model].lines)
    positions = depth.positions(names)
    for name in names:
        yield _wanted(name, [(source, name) for source in frame.inputs], frame, models, positions[name])


def _wanted(
    name: str,
    inputs: Sequence[tuple[RecipeSource, str]],
    frame: Frame,
    models: Mapping[str, ModelFiles],
    position: float,
    base_name: str | None = None,
) -> ResultTensor:
    """Return the tensor ``name`` that is made from the tensors of these names of the inputs."""
    lines = [models[source.model].line(own) for source, own in inputs]
    base = models[frame.base.model].line(base_name or name) if frame.base is not None else None
    owners = [
        (models[source.model], own)
        for source, own in [*inputs, *([(frame.base, base_name or name)] if frame.base else [])]
    ]
    place = next((model.places[own] for model, own in owners if own in model.places), "")
    called = tuple(_called(line, name) for line in lines)
    names = tuple(own for _, own in inputs)
    return ResultTensor(name, called, _called(base, name), frame, position, place, names)


def _called(line: Line | None, name: str) -> Line | None:
    return None if line is None else replace(line, name=name)


# -- slices ----------------------------------------------------------------------------------


def _sliced(document: Document, models: Mapping[str, ModelFiles]) -> Iterator[ResultTensor]:
    frames = document.frames
    layers = {name: _Layers(models[name]) for frame in frames for name in _names(frame)}
    prefix = layers[frames[0].inputs[0].model].prefix
    depth = sum(end - first for first, end in (frame.inputs[0].layers or (0, 0) for frame in frames))
    if depth > _MOST_LAYERS:
        raise UsageError(f"the slices are {depth} layers; a model has at most {_MOST_LAYERS}")
    yield from _outside(frames[0], models, layers, first=True)
    number = 0
    for frame in frames:
        first, end = frame.inputs[0].layers or (0, 0)
        for offset in range(end - first):
            position = offset / (end - first - 1) if end - first > 1 else 1.0
            yield from _layer(f"{prefix}{number}", frame, offset, position, models, layers)
            number += 1
    yield from _outside(frames[-1], models, layers, first=False)


def _names(frame: Frame) -> Iterable[str]:
    return (source.model for source in frame.sources)


def _layer(
    start: str,
    frame: Frame,
    offset: int,
    position: float,
    models: Mapping[str, ModelFiles],
    layers: Mapping[str, _Layers],
) -> Iterator[ResultTensor]:
    known = [(source, layers[source.model].layer(source, offset)) for source in frame.inputs]
    below = layers[frame.base.model].layer(frame.base, offset) if frame.base is not None else {}
    rests = dict.fromkeys(rest for names in (*(names for _, names in known), below) for rest in names)
    for rest in rests:
        inputs = [(source, names.get(rest, "")) for source, names in known]
        yield _wanted(f"{start}{rest}", inputs, frame, models, position, below.get(rest))


def _outside(
    frame: Frame, models: Mapping[str, ModelFiles], layers: Mapping[str, _Layers], *, first: bool
) -> Iterator[ResultTensor]:
    """Yield what is before the layers, or else behind them."""
    names = dict.fromkeys(name for model in _names(frame) for name in layers[model].outside)
    for name in names:
        is_first = bool(_FIRST.fullmatch(name)) and not _HEADS.fullmatch(name)
        if is_first == first:
            yield _wanted(name, [(source, name) for source in frame.inputs], frame, models, 0.0)
