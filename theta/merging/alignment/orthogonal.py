"""Orthogonal alignment of Llamas: theirs in the directions of ours, not only in the order of its units.

A model with RMSNorm before its blocks computes the same after its residual stream is turned by any
orthogonal matrix, once the gains of its norms are a part of the matrices behind them (SliceGPT,
arXiv:2401.15024).  The same holds for pairs of values of queries and keys that positions rotate together,
for values and outputs of a head, and for units of a gated MLP in any order and, between up and down, of
either sign (see also arXiv:2506.22712).

Among these maps, weight matching improves the inner product of both models, one group at a time, as Git
Re-Basin does: Procrustes for the stream and for values, angles for rotated pairs, an assignment for heads
and units.  Theirs gets the gains of ours, so that both are in one form.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any, Final

from theta._blas import one_thread
from theta._numpy import np
from theta.errors import UsageError
from theta.merging import storing
from theta.merging.alignment.assignment import best
from theta.merging.alignment.axes import Heads
from theta.merging.strategies.numbers import narrow, widen
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter
from theta.store.read.stored_tensor import StoredTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Weights = dict[str, "Array"]

_BLOCK: Final = r"model\.layers\.(\d{1,4})\."
_NAMES: Final = re.compile(
    r"(?:model\.(?:embed_tokens|norm)|lm_head"
    rf"|{_BLOCK}(?:(?:input|post_attention)_layernorm|self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj))\.weight"
)
_ATTENTION: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_MLP: Final = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_ENDS: Final = ("model.embed_tokens.weight", "lm_head.weight")
"""The matrices before the first layer and behind the last one, which turn like those that read the stream."""
_INWARD: Final = (*_ATTENTION[:3], *_MLP[:2])
_OUTWARD: Final = ("self_attn.o_proj", "mlp.down_proj")
WAY: Final = "orthogonal"
KINDS: Final = ("llama", "mistral")
"""Values of ``model_type`` in ``config.json``; norms of Gemma, of the same names, are of another form."""
_MOST: Final = 1 << 28
"""Values of a model, all of which are in memory in float64, twice."""
_LEAST: Final = 1e-6
"""The smallest gain that is divided by."""
_ROUNDS: Final = 30
_ENOUGH: Final = 1e-6
_SHARED: Final = 4
"""Heads of queries that share one of keys: all their orders are tried."""


@dataclass(frozen=True)
class Turned:
    """A model in the directions of another: the words of each of its tensors."""

    words: Mapping[str, Any]

    def apply(self, objects: Objects, pack: PackWriter, manifest: Manifest) -> Manifest:
        """Return ``manifest`` with these values, which are in ``pack``."""
        lines = tuple(self._line(objects, pack, line) for line in manifest.lines)
        return replace(manifest, lines=lines, groups=())

    def _line(self, objects: Objects, pack: PackWriter, line: Line) -> Line:
        like = Line(line.name, line.dtype, line.shape, "", "")
        return storing.plan(objects, like, lambda: iter([self.words[line.name]]), [], compare=False).write(
            pack
        )


def find(
    objects: Objects, ours: Sequence[Manifest], theirs: Sequence[Manifest], heads: Heads | None, kind: str
) -> Turned:
    """Return ``theirs``, the files of one model, in the directions of ``ours``.

    ``heads`` and ``kind`` are what the configuration tells.  Raises :class:`UsageError` for models that are
    no Llamas with a head of their own, or too large.
    """
    sides = [{line.name: line for one in files for line in one.lines} for files in (ours, theirs)]
    if heads is None or kind not in KINDS:
        raise UsageError(
            f"--align orthogonal goes for models whose config.json has the model_type {' or '.join(KINDS)}",
            hint="--align weights goes for more models",
        )
    _check(sides[0], sides[1], heads)
    values = [{name: _values(objects, line) for name, line in lines.items()} for lines in sides]
    gains = {name: one for name, one in values[0].items() if one.ndim == 1}
    if not all((np.abs(one) > _LEAST).all() for one in gains.values()):
        raise UsageError("--align orthogonal: a gain of a norm of ours is zero")
    if not all(np.isfinite(one).all() for side in values for one in side.values()):
        raise UsageError("--align orthogonal: a value is infinite or no number")
    with one_thread, np.errstate(all="ignore"):
        model = _Model(_count(sides[0]), heads)
        found = model.with_gains(model.aligned(*(model.without_gains(one) for one in values)), gains)
    lines = sides[1]
    return Turned(
        {name: narrow(_wide(one, lines[name].dtype), lines[name].dtype) for name, one in found.items()}
    )


def _check(ours: Mapping[str, Line], theirs: Mapping[str, Line], heads: Heads) -> None:
    for lines in (ours, theirs):
        odd = next((name for name in lines if not _NAMES.fullmatch(name)), None)
        if odd is not None or "lm_head.weight" not in lines or "model.embed_tokens.weight" not in lines:
            raise UsageError(
                f"--align orthogonal goes for a Llama with a head of its own and no {odd or 'tied weights'}",
                hint="--align weights goes for more models",
            )
        if any(line.dtype not in ("f64", "f32", "f16", "bf16") for line in lines.values()):
            raise UsageError("--align orthogonal goes for f64, f32, f16 and bf16")
        if sum(int(np.prod(line.shape)) for line in lines.values()) > _MOST:
            raise UsageError(f"--align orthogonal holds all values in memory, at most {_MOST}")
    if {name: line.shape for name, line in ours.items()} != {
        name: line.shape for name, line in theirs.items()
    }:
        raise UsageError("--align orthogonal goes for two models of the same shapes")
    if heads.each > _SHARED:
        raise UsageError(f"--align orthogonal: more than {_SHARED} heads of queries share one of keys")
    _check_shapes({name: line.shape for name, line in ours.items()}, heads)


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], heads: Heads) -> None:
    width = shapes["lm_head.weight"][-1]
    for layer in range(_count(shapes)):
        query, key, value, output = (shapes[_name(layer, part)] for part in _ATTENTION)
        gate, up, down = (shapes[_name(layer, part)] for part in _MLP)
        size = query[0] // heads.queries
        wanted = [(heads.queries * size, width), *[(heads.keys * size, width)] * 2, (width, query[0])]
        if (
            [query, key, value, output] != wanted
            or size % 2
            or not gate == up == down[::-1] == (gate[0], width)
        ):
            raise UsageError(f"--align orthogonal: layer {layer} has not the shapes of a Llama's")


def _count(lines: Collection[str]) -> int:
    found = [int(match[1]) for name in lines if (match := _NAMES.fullmatch(name)) and match[1]]
    count = max(found, default=-1) + 1
    parts = ("input_layernorm", "post_attention_layernorm", *_ATTENTION, *_MLP)
    wanted = [f"model.layers.{layer}.{part}.weight" for layer in range(count) for part in parts]
    missing = next((name for name in (*wanted, "model.norm.weight") if name not in lines), None)
    if missing is not None:
        raise UsageError(f"--align orthogonal goes for a whole Llama, and {missing} is missing")
    return count


def _values(objects: Objects, line: Line) -> Array:
    words = StoredTensor(objects, line).whole().words
    found: Array = widen(words, line.dtype).astype(np.float64).reshape(line.shape)
    return found


def _wide(values: Array, dtype: str) -> Any:
    return values.reshape(-1) if dtype == "f64" else values.reshape(-1).astype(np.float32)


@dataclass(frozen=True)
class _Model:
    """The maps of a Llama of ``layers`` layers that leave what it computes as it is."""

    layers: int
    heads: Heads

    def _behind(self) -> Iterator[tuple[str, str]]:
        """Yield the names of each norm and of a matrix behind it."""
        for layer in range(self.layers):
            for part in _INWARD:
                norm = "input_layernorm" if part.startswith("self_attn") else "post_attention_layernorm"
                yield _name(layer, norm), _name(layer, part)
        yield "model.norm.weight", "lm_head.weight"

    def without_gains(self, values: Weights) -> Weights:
        """Return the matrices, with the gains in those behind them."""
        found = {name: one for name, one in values.items() if one.ndim == 2}
        return found | {name: values[name] * values[norm] for norm, name in self._behind()}

    def with_gains(self, values: Weights, gains: Weights) -> Weights:
        """Return the model with other ``gains``, by which the matrices behind them are divided."""
        found = values | {name: values[name] / gains[norm] for norm, name in self._behind()}
        return found | gains

    def aligned(self, ours: Weights, theirs: Weights) -> Weights:
        """Return ``theirs`` in the directions of ``ours``; both are without gains."""
        theirs = self._turned(theirs, _nearest(sum(ours[name].T @ theirs[name] for name in _ENDS)))
        before, length = -np.inf, sum(float((one * one).sum()) for one in ours.values())
        for _ in range(_ROUNDS):
            theirs = self._units(ours, self._attention(ours, theirs))
            theirs = self._turned(theirs, self._stream(ours, theirs))
            now = sum(float((ours[name] * theirs[name]).sum()) for name in ours)
            if now - before < _ENOUGH * length:
                break
            before = now
        return self._units(ours, self._attention(ours, theirs))

    def _stream(self, ours: Weights, theirs: Weights) -> Array:
        """Return the turn of the residual stream of ``theirs`` that is nearest to ``ours``."""
        total = sum(ours[name].T @ theirs[name] for name in self._readers)
        return _nearest(total + sum(ours[name] @ theirs[name].T for name in self._all(_OUTWARD)))

    @property
    def _readers(self) -> list[str]:
        """The matrices whose columns are values of the stream."""
        return [*_ENDS, *self._all(_INWARD)]

    def _all(self, parts: Sequence[str]) -> list[str]:
        return [_name(layer, part) for layer in range(self.layers) for part in parts]

    def _turned(self, values: Weights, turn: Array) -> Weights:
        found = {name: values[name] @ turn.T for name in self._readers}
        return found | {name: turn @ values[name] for name in self._all(_OUTWARD)}

    def _units(self, ours: Weights, theirs: Weights) -> Weights:
        """Put the units of each MLP in order; up and down may change their signs together."""
        found = dict(theirs)
        for layer in range(self.layers):
            gate, up, down = (_name(layer, part) for part in _MLP)
            signed = ours[up] @ theirs[up].T + ours[down].T @ theirs[down]
            order = best(ours[gate] @ theirs[gate].T + np.abs(signed))
            signs = np.where(signed[np.arange(len(order)), order] < 0, -1.0, 1.0)
            found[gate], found[up] = theirs[gate][order], theirs[up][order] * signs[:, None]
            found[down] = theirs[down][:, order] * signs
        return found

    def _attention(self, ours: Weights, theirs: Weights) -> Weights:
        found = dict(theirs)
        for layer in range(self.layers):
            names = [_name(layer, part) for part in _ATTENTION]
            made = self._heads([self._split(one, names) for one in (ours, theirs)])
            width = ours[names[3]].shape[0]
            queries, keys, values, outputs = made
            found |= {
                names[0]: queries.reshape(-1, width),
                names[1]: keys.reshape(-1, width),
                names[2]: values.reshape(-1, width),
                names[3]: outputs.reshape(-1, width).T,
            }
        return found

    def _split(self, values: Weights, names: Sequence[str]) -> list[Array]:
        """Return queries and outputs (keys, shared, size, width), keys and values (keys, size, width)."""
        query, key, value, output = (values[name] for name in names)
        count, each, width = self.heads.keys, self.heads.each, output.shape[0]
        queries, outputs = (one.reshape(count, each, -1, width) for one in (query, output.T))
        return [queries, key.reshape(count, -1, width), value.reshape(count, -1, width), outputs]

    def _heads(self, sides: Sequence[Sequence[Array]]) -> list[Array]:
        ours, theirs = sides
        count = self.heads.keys
        fits = [[_Fit.of(ours, theirs, one, other) for other in range(count)] for one in range(count)]
        order = best(np.array([[fit.score for fit in row] for row in fits]))
        chosen = [fits[one][other].apply(theirs, int(other)) for one, other in enumerate(order)]
        return [np.stack(parts) for parts in zip(*chosen, strict=True)]


@dataclass(frozen=True)
class _Fit:
    """How a head of keys of theirs, and the queries that share it, are turned to one of ours."""

    score: float
    order: Sequence[int]
    cosines: Array
    sines: Array
    turn: Array

    @classmethod
    def of(cls, ours: Sequence[Array], theirs: Sequence[Array], one: int, other: int) -> _Fit:
        """Return the best of all orders of the heads of queries."""
        query, key, value, output = (side[one] for side in ours)
        queries, keys, values, outputs = (side[other] for side in theirs)
        fits = []
        for order in permutations(range(len(query))):
            pairs = [(query[n], queries[m]) for n, m in enumerate(order)] + [(key, keys)]
            cosines, sines = (np.sum(parts, axis=0) for parts in zip(*map(_angles, pairs), strict=True))
            length = np.hypot(cosines, sines)
            known = np.where(length > 0, length, 1)
            both = value @ values.T + sum(output[n] @ outputs[m].T for n, m in enumerate(order))
            score = float(length.sum() + np.linalg.svd(both, compute_uv=False).sum())
            aligned = np.where(length > 0, cosines / known, 1), np.where(length > 0, sines / known, 0)
            fits.append(cls(score, order, *aligned, _nearest(both)))
        return max(fits, key=lambda fit: fit.score)

    def apply(self, theirs: Sequence[Array], other: int) -> tuple[Array, Array, Array, Array]:
        """Return queries, keys, values and outputs of the head."""
        queries, keys, values, outputs = (side[other] for side in theirs)
        order = list(self.order)
        moved = np.stack([self._rotated(one) for one in queries[order]])
        return moved, self._rotated(keys), self.turn @ values, self.turn @ outputs[order]

    def _rotated(self, values: Array) -> Array:
        half = len(values) // 2
        first, second = values[:half], values[half:]
        cosines, sines = self.cosines[:, None], self.sines[:, None]
        return np.concatenate([cosines * first - sines * second, sines * first + cosines * second])


def _angles(pair: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return for each pair of values that is rotated together what its best angle is made of."""
    ours, theirs = pair
    half = len(ours) // 2
    cosines = (ours[:half] * theirs[:half]).sum(1) + (ours[half:] * theirs[half:]).sum(1)
    sines = (ours[half:] * theirs[:half]).sum(1) - (ours[:half] * theirs[half:]).sum(1)
    return cosines, sines


def _nearest(total: Any) -> Array:
    """Return the orthogonal matrix Q with the largest trace of ``Q.T @ total`` (Schönemann, 1966)."""
    left, _, right = np.linalg.svd(total)
    found: Array = left @ right
    return found


def _name(layer: int, part: str) -> str:
    return f"model.layers.{layer}.{part}.weight"
