"""Rules on names, shapes and dtypes: beside config.json, the lists of tokens and the version before."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from theta.dtypes import DTYPES
from theta.formats.values import Value
from theta.porcelain.check.findings import BrokenRule
from theta.units import shape_text

_LAYER: Final = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.([0-9]{1,5})\.")
_EMBEDDING: Final = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|tok_embeddings|shared|token_embedding)\.weight$"
)
_HEAD: Final = re.compile(
    r"(?:^|\.)(?:lm_head|output_projection|embed_out|cls\.predictions\.decoder)\.weight$"
)
_COLUMNS: Final = {
    re.compile(r"\.(?:q_proj|k_proj|v_proj|gate_proj|up_proj)\.weight$"): ("hidden_size",),
    re.compile(r"\.attention\.self\.(?:query|key|value)\.weight$"): ("hidden_size",),
    re.compile(r"\.mlp\.down_proj\.weight$"): ("intermediate_size",),
    re.compile(r"(?:input_layernorm|post_attention_layernorm)\.weight$"): ("hidden_size",),
}
_ROWS: Final = {
    re.compile(r"\.mlp\.(?:gate_proj|up_proj)\.weight$"): "intermediate_size",
    re.compile(r"\.layer\.[0-9]+\.intermediate\.dense\.weight$"): "intermediate_size",
}
_HEADS: Final = re.compile(r"\.self_attn\.[kv]_proj\.weight$")
_LAYERS: Final = ("num_hidden_layers", "n_layer", "num_layers")


@dataclass(frozen=True)
class Surroundings:
    """The files beside a checkpoint: its config.json, and the highest id of each list of tokens by file."""

    config: Mapping[str, Any] = field(default_factory=dict)
    last_tokens: Mapping[str, int] = field(default_factory=dict)

    def number(self, *keys: str) -> int | None:
        """Return the first of ``keys`` that the configuration has as a whole number."""
        found = (self.config.get(key) for key in keys)
        return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)


def check(
    path: str, values: Mapping[str, Value], before: Mapping[str, Value] | None, around: Surroundings
) -> Iterator[BrokenRule]:
    """Yield what is wrong with the names, shapes and dtypes of one checkpoint."""
    if before is not None:
        yield from _beside(path, values, before)
    yield from _mixed(path, values)
    yield from _configured(path, values, around)
    yield from _vocabulary(path, values, around)


def _beside(path: str, values: Mapping[str, Value], before: Mapping[str, Value]) -> Iterator[BrokenRule]:
    for name, old in before.items():
        new = values.get(name)
        if new is None:
            yield BrokenRule(
                "missing", path, name, f"the version before has it: {shape_text(old.shape)} {old.dtype}"
            )
        elif new.shape != old.shape:
            yield BrokenRule(
                "shape", path, name, f"{shape_text(old.shape)} before, {shape_text(new.shape)} now"
            )
        elif new.dtype != old.dtype:
            yield BrokenRule("dtype", path, name, f"{old.dtype} before, {new.dtype} now")


def _mixed(path: str, values: Mapping[str, Value]) -> Iterator[BrokenRule]:
    """Yield tensors whose dtype is not that of the same tensor in most other layers."""
    kinds: dict[str, Counter[str]] = {}
    for name, value in values.items():
        if (layer := _LAYER.search(name)) is not None:
            kinds.setdefault(_without(name, layer), Counter())[value.dtype] += 1
    for name, value in values.items():
        if (layer := _LAYER.search(name)) is None:
            continue
        usual, count = kinds[_without(name, layer)].most_common(1)[0]
        if value.dtype != usual and count > kinds[_without(name, layer)][value.dtype]:
            yield BrokenRule("dtype", path, name, f"{value.dtype}; in {count} other layers it is {usual}")


def _without(name: str, layer: re.Match[str]) -> str:
    return name[: layer.start(1)] + "*" + name[layer.end(1) :]


def _configured(path: str, values: Mapping[str, Value], around: Surroundings) -> Iterator[BrokenRule]:
    """Yield shapes and numbers of layers that config.json does not imply.

    A model with several stacks of layers, such as one for images, has several sizes: it is left alone, and
    so are quantised weights, which have other shapes.
    """
    stacks: dict[str, set[int]] = {}
    for name in values:
        if (layer := _LAYER.search(name)) is not None:
            stacks.setdefault(name[: layer.start(1)], set()).add(int(layer[1]))
    if len(stacks) != 1:
        return
    for name, value in values.items():
        if DTYPES[value.dtype].kind == "float":
            yield from _sizes(path, name, value, around)
    wanted, more = around.number(*_LAYERS), around.number("num_nextn_predict_layers") or 0
    numbers = next(iter(stacks.values()))
    if wanted is not None and numbers not in (set(range(wanted)), set(range(wanted + more))):
        yield BrokenRule("shape", path, "", f"{len(numbers)} layers; config.json says {wanted}")


def _head_rows(around: Surroundings) -> int | None:
    """Return the rows of a projection to keys or values; None when the configuration does not say them."""
    heads, width = around.number("num_attention_heads"), around.number("hidden_size")
    groups = around.number("num_key_value_heads") or heads
    each = around.number("head_dim") or (width // heads if heads and width and not width % heads else None)
    return groups * each if groups and each else None


def _sizes(path: str, name: str, value: Value, around: Surroundings) -> Iterator[BrokenRule]:
    rows = _head_rows(around)
    if _HEADS.search(name) and rows is not None and value.shape and value.shape[0] != rows:
        yield BrokenRule("shape", path, name, _not_as(value, "heads of keys and values with rows of", rows))
    for pattern, keys in _COLUMNS.items():
        wanted = around.number(*keys)
        if pattern.search(name) and wanted is not None and value.shape and value.shape[-1] != wanted:
            yield BrokenRule("shape", path, name, _not_as(value, keys[0], wanted))
    for pattern, key in _ROWS.items():
        wanted = around.number(key)
        if pattern.search(name) and wanted is not None and value.shape and value.shape[0] != wanted:
            yield BrokenRule("shape", path, name, _not_as(value, key, wanted))


def _not_as(value: Value, key: str, wanted: int) -> str:
    return f"{shape_text(value.shape)}; config.json says {key} {wanted}"


def _vocabulary(path: str, values: Mapping[str, Value], around: Surroundings) -> Iterator[BrokenRule]:
    size = around.number("vocab_size", "n_vocab")
    for name, value in values.items():
        if not value.shape or not (_EMBEDDING.search(name) or _HEAD.search(name)):
            continue
        rows = value.shape[0]
        if size is not None and rows != size:
            yield BrokenRule("shape", path, name, f"{rows} rows; config.json says vocab_size {size}")
        for file, last in around.last_tokens.items():
            if last >= rows:
                yield BrokenRule("vocabulary", path, name, f"{rows} rows; {file} goes up to id {last}")


def tied(values: Mapping[str, Value], around: Surroundings) -> tuple[str, str] | None:
    """Return the embedding and the head that config.json ties, when both are in the file."""
    if around.config.get("tie_word_embeddings") is not True:
        return None
    heads = [name for name in values if _HEAD.search(name)]
    embeddings = [name for name in values if _EMBEDDING.search(name)]
    return (embeddings[0], heads[0]) if heads and embeddings else None
