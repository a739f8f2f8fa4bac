"""Specifications of the units of a model: a small file in JSON or TOML.

    heads = 8
    kv_heads = 2
    [axes]
    "blocks.*.up.weight" = ["mlp*", "residual"]
    "blocks.*.attn.q.weight" = ["attn*/q", "residual"]
    "embed.weight" = ["", "residual"]

Each pattern names the groups of the axes of the tensors that it matches; ``*`` in a group stands for what
the first ``*`` of the pattern matched.  The order of an axis without a group is fixed.  The first pattern
that matches counts; a tensor that none matches has a fixed order.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from theta.errors import UsageError
from theta.merging.alignment import families
from theta.merging.alignment.axes import Axis, Heads, UnitLayout
from theta.merging.alignment.families import Shapes

WAYS: Final = ("weights", "transport", "orthogonal")
MOST: Final = 1 << 18
"""Characters of a specification, which is a part of the message of a commit."""
_KEYS: Final = {"heads", "kv_heads", "rotary", "axes"}


@dataclass(frozen=True)
class Alignment:
    """How the other model is reordered after ours, before both are merged.

    Attributes:
        way: ``weights``, ``transport`` or ``orthogonal``.
        spec: what the user says about the units, as JSON; "" for what names and configuration tell.
    """

    way: str
    spec: str = ""


@dataclass(frozen=True)
class UnitSpec:
    """A parsed specification.

    Attributes:
        heads: the number of attention heads; None if it does not say.
        axes: pattern -> groups of the axes; empty if names tell.
    """

    heads: Heads | None = None
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def way(text: str) -> str:
    """Check the name of a way to align; raises :class:`UsageError`."""
    if text not in WAYS:
        raise UsageError(f"--align is one of {', '.join(WAYS)}, not {text!r}")
    return text


def canonical(text: str) -> str:
    """Return the specification in ``text``, JSON or TOML, as one line of JSON; raises :class:`UsageError`."""
    if len(text) > MOST:
        raise UsageError(f"a specification of {len(text)} characters is too long")
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the specification is neither JSON nor TOML: {error}") from error
    try:
        line = json.dumps(found, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the specification has more than names and numbers: {error}") from error
    parsed(line)
    return line


def parsed(line: str) -> UnitSpec:
    """Parse the result of :func:`canonical`; raises :class:`UsageError`."""
    if not line:
        return UnitSpec()
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"a malformed specification: {error}") from error
    if not isinstance(found, dict) or found.keys() - _KEYS:
        raise UsageError(f"a specification has the keys {', '.join(sorted(_KEYS))}")
    axes = found.get("axes", {})
    if not isinstance(axes, dict) or not all(_is_words(one) for one in axes.values()):
        raise UsageError('axes of a specification are lists of names, such as ["mlp*", "residual"]')
    return UnitSpec(_heads(found), axes)


def _is_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _heads(found: Mapping[str, Any]) -> Heads | None:
    if "heads" not in found:
        return None
    return heads(found["heads"], found.get("kv_heads", found["heads"]), rotary=bool(found.get("rotary")))


def heads(queries: object, keys: object, *, rotary: bool = False) -> Heads:
    """Return the numbers of heads if they make sense; raises :class:`UsageError`."""
    if type(queries) is not int or type(keys) is not int or queries < 0 or keys < (queries > 0):
        raise UsageError(f"the numbers of heads are whole numbers, not {queries!r} and {keys!r}")
    if queries and queries % keys:
        raise UsageError(f"{queries} heads cannot share {keys} heads of keys")
    return Heads(queries, keys, rotary)


def of_config(config: Mapping[str, Any]) -> Heads | None:
    """Return the heads that a ``config.json`` tells, or None."""
    text = config.get("text_config")
    config = text if isinstance(text, dict) and "num_attention_heads" not in config else config
    names = ("num_attention_heads", "n_head", "n_heads")
    queries = next((config[name] for name in names if name in config), None)
    if queries is None:
        return None
    keys = config.get("num_key_value_heads")
    return heads(queries, queries if keys is None else keys)


def layout(shapes: Shapes, spec: UnitSpec, known: Heads | None) -> UnitLayout:
    """Return the axes of the tensors with these names and shapes; ``known`` are the heads of the model."""
    own = spec.heads or known
    if not spec.axes:
        return families.layout(shapes, own)
    found = {name: axes for name, shape in shapes.items() if (axes := _axes(spec, name, shape, own))}
    return families.laid_out(found, own, lambda _: own is not None and own.rotary)


def starred(pattern: str, name: str) -> str | None:
    """Return the most that the first star of ``pattern`` can stand for in ``name``; None if none can.

    ``*`` itself for a pattern without stars.  What stands behind the first star is looked for from the end,
    so that the time is that of one search for each star, and not of all their places.
    """
    head, *inner = pattern.split("*")
    if not inner:
        return "*" if head == name else None
    last = inner.pop()
    end = len(name) - len(last)
    if end < len(head) or not name.startswith(head) or not name.endswith(last):
        return None
    for part in reversed(inner):
        end = name.rfind(part, len(head), end)
        if end < 0:
            return None
    return name[len(head) : end]


def _axes(spec: UnitSpec, name: str, shape: tuple[int, ...], own: Heads | None) -> tuple[Axis, ...]:
    for pattern, words in spec.axes.items():
        star = starred(pattern, name)
        if star is None:
            continue
        if len(words) != len(shape):
            raise UsageError(
                f"{pattern} has {len(words)} axes in the specification, and {name} {list(shape)}"
            )
        return tuple(
            families.axis(word.replace("*", star), size, own) for word, size in zip(words, shape, strict=True)
        )
    return ()
