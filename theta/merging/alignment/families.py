"""The axes of a model that are over the same units, by the names that model programs give to tensors.

Known are Llama and its like (Qwen, Mistral, Gemma, Phi-3, their mixtures of experts), BERT and its like
(MiniLM, RoBERTa, DistilBERT), GPT-2, and plain chains of layers such as ``layers.0.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from theta.errors import UsageError
from theta.merging.alignment.axes import HEAD_ROLES, UNITS, Axis, AxisPart, Heads, UnitLayout

RESIDUAL: Final = "residual"
"""The group of the units that all blocks of a transformer add to."""

_LINEAR: Final = "linear"
"""Weights are over the units after and before the layer."""
_CONV1D: Final = "conv1d"
"""Weights are over the units before and after the layer."""
_ROLES: Final = {"query": "q", "key": "k", "value": "v"}
_ATTENTION: Final = "{0}/q+{0}/k+{0}/v"
_ROWS: Final = tuple(
    (kind, re.compile(rf"{module}\.(weight|bias)"), after, before)
    for kind, module, after, before in (
        # Llama and its like
        (_LINEAR, r"(?:.*\.)?(?:embed_tokens|lm_head|score)", "", RESIDUAL),
        (_LINEAR, r"(?:.*\.)?(?:\w+_layernorm|norm)", RESIDUAL, ""),
        (_LINEAR, r"(.*\.self_attn)\.([qkv])_proj", "{0}/{1}", RESIDUAL),
        (_LINEAR, r"(.*\.self_attn)\.qkv_proj", _ATTENTION, RESIDUAL),
        (_LINEAR, r"(.*\.self_attn)\.o_proj", RESIDUAL, "{0}/o"),
        (_LINEAR, r"(.*)\.(?:gate_proj|up_proj)", "{0}", RESIDUAL),
        (_LINEAR, r"(.*)\.gate_up_proj", "{0}+{0}", RESIDUAL),
        (_LINEAR, r"(.*)\.down_proj", RESIDUAL, "{0}"),
        (_LINEAR, r"(.*\.experts\.\d+)\.w[13]", "{0}", RESIDUAL),
        (_LINEAR, r"(.*\.experts\.\d+)\.w2", RESIDUAL, "{0}"),
        (_LINEAR, r".*\.(?:block_sparse_moe|mlp)\.(?:gate|shared_expert_gate)", "", RESIDUAL),
        # BERT and its like
        (_LINEAR, r"(?:.*\.)?embeddings\.(?:word|position|token_type)_embeddings", "", RESIDUAL),
        (_LINEAR, r"(?:.*\.)?(?:LayerNorm|layer_norm|sa_layer_norm|output_layer_norm)", RESIDUAL, ""),
        (_LINEAR, r"(.*\.attention)\.self\.(query|key|value)", "{0}/{1}", RESIDUAL),
        (_LINEAR, r"(.*\.attention)\.output\.dense", RESIDUAL, "{0}/o"),
        (_LINEAR, r"(.*\.\d+)\.intermediate\.dense", "{0}", RESIDUAL),
        (_LINEAR, r"(.*\.\d+)\.output\.dense", RESIDUAL, "{0}"),
        (_LINEAR, r"(.*\.attention)\.([qkv])_lin", "{0}/{1}", RESIDUAL),
        (_LINEAR, r"(.*\.attention)\.out_lin", RESIDUAL, "{0}/o"),
        (_LINEAR, r"(.*\.ffn)\.lin1", "{0}", RESIDUAL),
        (_LINEAR, r"(.*\.ffn)\.lin2", RESIDUAL, "{0}"),
        (_LINEAR, r"(?:.*\.)?(?:cls\.predictions\.transform|lm_head)\.dense", RESIDUAL, RESIDUAL),
        (_LINEAR, r"(?:.*\.)?(?:cls\.predictions|lm_head)\.decoder", "", RESIDUAL),
        # GPT-2
        (_LINEAR, r"(?:.*\.)?(?:wte|wpe)", "", RESIDUAL),
        (_LINEAR, r"(?:.*\.)?ln_(?:1|2|f)", RESIDUAL, ""),
        (_CONV1D, r"(.*\.attn)\.c_attn", _ATTENTION, RESIDUAL),
        (_CONV1D, r"(.*\.attn)\.c_proj", RESIDUAL, "{0}/o"),
        (_CONV1D, r"(.*\.mlp)\.c_fc", "{0}", RESIDUAL),
        (_CONV1D, r"(.*\.mlp)\.c_proj", RESIDUAL, "{0}"),
    )
)
_BUFFERS: Final = re.compile(
    r".*(\.attn\.(bias|masked_bias)|\.rotary_emb\.inv_freq|position_ids|token_type_ids|predictions\.bias)"
)
_NORM_OF_HEADS: Final = re.compile(r"((.*\.self_attn)\.([qk]))_norm\.(?:weight|bias)")
_POOLER: Final = re.compile(r"(?:.*\.)?(?:pooler\.dense|classifier\.dense|pre_classifier)\.(weight|bias)")
_HEAD: Final = re.compile(
    r"(?:.*\.)?(?:classifier|cls\.seq_relationship|classifier\.out_proj)\.(weight|bias)"
)
_LAYER: Final = re.compile(r"(.*?)(\d{1,6})\.(weight|bias|running_mean|running_var|num_batches_tracked)")

Shapes = Mapping[str, tuple[int, ...]]


def layout(shapes: Shapes, heads: Heads | None) -> UnitLayout:
    """Return the axes of the tensors with these names and shapes; ``heads`` None means that nobody knows.

    Raises :class:`UsageError` for a tensor whose axes are not known: left alone it might not fit the others.
    """
    known = (row[1].fullmatch(name) for name in shapes for row in _ROWS)
    if all(map(_LAYER.fullmatch, shapes)) and not any(known):
        return laid_out(_chain(shapes), None, lambda _: False)
    found = {name: _axes(name, shape, shapes, heads) for name, shape in shapes.items()}
    return laid_out(found, heads, lambda group: group.endswith(".self_attn"))


def laid_out(
    found: Mapping[str, tuple[Axis, ...]], heads: Heads | None, rotary: Callable[[str], bool]
) -> UnitLayout:
    """Return the layout with these axes, whose sizes fit each other."""
    parts = [part for axes in found.values() for axis in axes for part in axis]
    groups = {part.group for part in parts if part.group and part.role != UNITS}
    own = {group: replace(heads, rotary=rotary(group)) for group in groups} if heads is not None else {}
    made = UnitLayout(found, own)
    widths = {
        (group, role): own[group].width(role, size)
        for (group, role), size in made.sizes().items()
        if group in own
    }
    for group in own:
        for one, other in ("qk", "vo"):
            if (group, one) in widths and widths[group, one] != widths.get(
                (group, other), widths[group, one]
            ):
                told = f"{widths[group, one]} and {widths[group, other]} units"
                raise UsageError(f"heads of {one} and {other} in {group} have {told}; they must be equal")
    return made


def _axes(name: str, shape: tuple[int, ...], shapes: Shapes, heads: Heads | None) -> tuple[Axis, ...]:
    if _BUFFERS.fullmatch(name):
        return tuple((AxisPart("", UNITS, size),) for size in shape)
    kind, after, before = _row(name, shapes)
    if len(shape) not in (1, 2):
        raise _unknown(name, shape)
    ends = [after] if len(shape) == 1 else [after, before]
    ends = ends[::-1] if kind == _CONV1D else ends
    return tuple(axis(end, size, heads) for end, size in zip(ends, shape, strict=True))


def _row(name: str, shapes: Shapes) -> tuple[str, str, str]:
    """Return the kind of the tensor, and the units after and before it."""
    if _POOLER.fullmatch(name):
        return _LINEAR, "pooler" if any(map(_HEAD.fullmatch, shapes)) else "", RESIDUAL
    if _HEAD.fullmatch(name):
        return _LINEAR, "", "pooler" if any(map(_POOLER.fullmatch, shapes)) else RESIDUAL
    if match := _NORM_OF_HEADS.fullmatch(name):
        # one norm for all heads together has an order of units; one for each head alone has not
        beside = shapes.get(f"{match[1]}_proj.weight", ())
        return _LINEAR, f"{match[2]}/{match[3]}" if beside[:1] == shapes[name] else "", ""
    for kind, pattern, after, before in _ROWS:
        if match := pattern.fullmatch(name):
            words = [_ROLES.get(word, word) for word in match.groups()]
            return kind, after.format(*words), before.format(*words)
    raise _unknown(name, shapes[name])


def _unknown(name: str, shape: tuple[int, ...]) -> UsageError:
    return UsageError(
        f"--align does not know the units of {name} {list(shape)}",
        hint="say how the axes are connected with --align-spec FILE",
    )


def axis(text: str, size: int, heads: Heads | None) -> Axis:
    """Return the axis of ``size`` that ``text`` describes, such as ``attn/q+attn/k``."""
    words = [word.strip().partition("/") for word in text.split("+")]
    roles = [role if slash else UNITS for _, slash, role in words]
    if heads is None and any(role != UNITS for role in roles):
        raise UsageError(
            "--align needs the number of attention heads",
            hint="commit config.json beside the checkpoint, or say heads and kv_heads in --align-spec FILE",
        )
    if heads is not None and not heads.queries and any(role != UNITS for role in roles):
        return (AxisPart("", UNITS, size),)
    shares = [_share(role, heads) for role in roles]
    if size % sum(shares):
        raise UsageError(f"an axis of {size} units is not one of {text}")
    one = size // sum(shares)
    return tuple(
        AxisPart(group, role, share * one)
        for (group, _, _), role, share in zip(words, roles, shares, strict=True)
    )


def _share(role: str, heads: Heads | None) -> int:
    """Return how large a part is beside the others of its axis."""
    if role == UNITS or heads is None:
        return 1
    if role not in HEAD_ROLES:
        raise UsageError(f"a role is one of {', '.join(HEAD_ROLES)}, not {role!r}")
    return heads.keys if role in "kv" else heads.queries


def _chain(shapes: Shapes) -> dict[str, tuple[Axis, ...]]:
    """Return the axes of layers one behind the other, by the numbers in their names."""
    matches = {name: match for name in shapes if (match := _LAYER.fullmatch(name))}
    numbers = sorted({int(match[2]) for match in matches.values()})
    if len({match[1] for match in matches.values()}) != 1:
        name = next(iter(shapes))
        raise _unknown(name, shapes[name])
    last = max((int(match[2]) for name, match in matches.items() if len(shapes[name]) > 1), default=-1)
    if last < 0:
        name = next(iter(shapes))
        raise _unknown(name, shapes[name])
    found: dict[str, tuple[Axis, ...]] = {}
    after = ""
    for number in numbers:
        own = [name for name, match in matches.items() if int(match[2]) == number]
        before = after
        if any(len(shapes[name]) > 1 for name in own):
            after = f"layer{number}" if number != last else ""
        for name in own:
            ends = [after, before] if len(shapes[name]) == 2 else [after]
            if len(shapes[name]) > 2:
                raise _unknown(name, shapes[name])
            found[name] = tuple(axis(e, size, None) for e, size in zip(ends, shapes[name], strict=False))
    return found
