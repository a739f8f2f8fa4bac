"""Building a mixture of experts out of stored models, whose tensors are taken as they are stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.errors import UsageError
from theta.merging import geometry, result_file, storing
from theta.merging.mixtures import kinds
from theta.merging.mixtures.kinds import MixtureKind
from theta.merging.strategies import randomness
from theta.merging.strategies.numbers import narrow
from theta.store.format import listings
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter
from theta.store.write.snapshot import sorted_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_SMALLEST: Final = 1e-8


@dataclass(frozen=True)
class ExpertMixture:
    """A mixture of experts to build.

    Attributes:
        kind: what is built.
        base: the model of embeddings, attention and norms; its files.
        experts: the models of the experts, in order.
        shared: the model of the shared expert, or None.
        gates: vectors of experts and layers, those of the shared expert last; None for random ones.
        seed: the seed of random gates.
    """

    kind: MixtureKind
    base: Sequence[Manifest]
    experts: Sequence[Sequence[Manifest]]
    shared: Sequence[Manifest] | None = None
    gates: Array | None = None
    seed: int = 0

    def store(self, objects: Objects, pack: PackWriter, store: str) -> Manifest:
        """Store the model in ``pack`` and return its manifest; only gates and biases are new values.

        Raises :class:`UsageError` if models do not fit together.
        """
        base = _lines(self.base)
        found = [base[name] for name in kinds.of_base(self.kind, base)]
        for number, files in enumerate(self.experts):
            found += self._expert(base, files, number)
        if self.shared is not None:
            found += self._expert(base, self.shared, None)
        found += [line.write(pack) for line in self._gates(objects, base)]
        for name, weight in kinds.missing_biases(self.kind, [*base]):
            like = Line(name, base[weight].dtype, base[weight].shape[:1], "", "")
            found.append(_new(objects, like, np.zeros(like.shape, np.float32)).write(pack))
        lines = sorted_lines(found)
        skeleton = result_file.laid_out(objects, pack, self.base[0], lines)
        if skeleton is None:
            raise UsageError(
                f"no new file of format {self.base[0].format} can be written",
                hint="'theta convert' makes a safetensors file of the base",
            )
        made = replace(self.base[0], store=store, skeleton=skeleton, lines=tuple(lines), groups=())
        return listings.write(pack, made)

    def _expert(self, base: Mapping[str, Line], files: Sequence[Manifest], number: int | None) -> list[Line]:
        """Return the lines of the MLPs of a model under the names of expert ``number``."""
        lines, found = _lines(files), []
        for name, line in base.items():
            new = kinds.expert_name(self.kind, name, number)
            if new is None:
                continue
            own = lines.get(name)
            if own is None or (own.dtype, own.shape) != (line.dtype, line.shape):
                there = "missing" if own is None else f"{own.dtype} {list(own.shape)}"
                raise UsageError(
                    f"{name} is {line.dtype} {list(line.shape)} in the base and {there} in an expert"
                )
            found.append(replace(own, name=new))
        return found

    # -- gates -------------------------------------------------------------------------------

    def _gates(self, objects: Objects, base: Mapping[str, Line]) -> Iterable[Any]:
        """Yield the routers of all layers, to be written."""
        layers = kinds.layers(base)
        norm = base.get(f"{layers[0]}.input_layernorm.weight")
        if norm is None or not geometry.is_real(norm.dtype):
            raise UsageError(f"the base has no {layers[0]}.input_layernorm.weight of floats")
        width, experts = norm.shape[0], len(self.experts)
        count = experts + (self.shared is not None)
        given = _unit_vectors(self.gates, (count, len(layers), width)) if self.gates is not None else None
        for at, layer in enumerate(layers):
            for name, rows in (
                (self.kind.gate, range(experts)),
                (self.kind.shared_gate, range(experts, count)),
            ):
                if not len(rows):
                    continue
                like = Line(name.format(layer=layer), norm.dtype, (len(rows), width), "", "")
                values = given[rows.start : rows.stop, at] if given is not None else _random(like, self.seed)
                yield _new(objects, like, values)


def _lines(files: Sequence[Manifest]) -> dict[str, Line]:
    return {line.name: line for one in files for line in one.lines}


def _new(objects: Objects, like: Line, values: Array) -> Any:
    values = values.reshape(-1)
    words = narrow(values.astype(np.float32) if like.dtype == "bf16" else values, like.dtype)
    return storing.plan(objects, like, lambda: iter([words]), [], compare=False)


def _random(like: Line, seed: int) -> Array:
    """Return numbers uniform in ``+-1/sqrt(width)``, as a new linear layer has them, the same everywhere."""
    stream = randomness.key(seed, "build-moe", like.name, 0)
    unit = (randomness.bits(stream, 0, math.prod(like.shape)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    found: Array = (2 * unit - 1) / math.sqrt(like.shape[1])
    return found


def _unit_vectors(values: Array, shape: tuple[int, ...]) -> Array:
    """Return ``values`` scaled to length 1; raises :class:`UsageError` unless they are of ``shape``."""
    if values.shape != shape:
        raise UsageError(
            f"gates are of shape {list(shape)} (experts, layers, width), not {list(values.shape)}",
            hint="one vector for each expert and layer, those of the shared expert last",
        )
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise UsageError("the vectors of the gates have NaN or infinity")
    lengths = np.sqrt((wide * wide).sum(axis=-1, keepdims=True))
    found: Array = wide / np.maximum(lengths, _SMALLEST)
    return found
