"""The factors of adapters in a merge: both of a module are computed together, from those of all sides."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.codecs import arith
from theta.errors import UsageError
from theta.lazy import Module
from theta.merging.adapters.scales import Scales
from theta.merging.strategies import Strategy, is_averaged
from theta.merging.strategies.factor_names import FACTOR, is_factor
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.objects import Objects
from theta.store.read.stored_tensor import StoredTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.merging.adapters import products
    from theta.merging.adapters.products import Mixture
    from theta.merging.strategies import randomness

    Matrix = NDArray[np.float64]
else:
    products = Module("theta.merging.adapters.products")
    randomness = Module("theta.merging.strategies.randomness")

_PREFIX: Final = "base_model.model."


def _names(name: str) -> tuple[str, str]:
    """Return the names of A and B of the module of factor ``name``."""
    match = FACTOR.fullmatch(name)
    assert match is not None
    first, second = (f"{match['module']}.lora{match['kind'] or ''}_{part}{match['end']}" for part in "AB")
    return first, second


@dataclass
class _Pair:
    """Both factors of one module."""

    sides: Sequence[tuple[Line, Line]]
    scales: Sequence[float]
    mixture: Mixture
    rank: int
    scale: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    found: tuple[Matrix, Matrix] | None = None

    def result(self, objects: Objects) -> tuple[Matrix, Matrix]:
        """Return A and B of the result, computed once."""
        with self.lock:
            if self.found is None:
                both = zip(self.sides, self.scales, strict=True)
                sides = [
                    products.ModuleFactors(_matrix(objects, a), _matrix(objects, b), by)
                    for (a, b), by in both
                ]
                a, b = self.mixture.factors(sides, self.rank)
                self.found = a / self.scale, b
            return self.found


def _matrix(objects: Objects, line: Line) -> Matrix:
    whole = StoredTensor(objects, line).whole()
    return arith.to_values(whole.words, line.dtype).reshape(line.shape[0], -1)


@dataclass(frozen=True)
class MadeFactor:
    """One factor of the result: its name, dtype and shape, and how it is computed."""

    like: Line
    pair: _Pair
    is_b: bool

    def words(self, objects: Objects) -> NDArray[Any]:
        """Return the words, each rounded once."""
        value = np.ascontiguousarray(self.pair.result(objects)[self.is_b]).reshape(-1)
        return arith.to_words(value, self.like.dtype)


class AdapterMerge:
    """The factors of one adapter file on all sides.

    Attributes:
        rank: the rank that all modules of the result have, if their configuration has to change.
    """

    def __init__(self, sides: Sequence[Manifest], scales: Sequence[Scales | None], seed: int) -> None:
        self._sides, self._seed = sides, seed
        self._scales = list(scales)
        self._pairs: dict[str, _Pair | None] = {}
        self.rank: int | None = None

    @property
    def names(self) -> list[str]:
        """The names of all factors of all sides."""
        return sorted({line.name for side in self._sides for line in side.lines if is_factor(line.name)})

    def made(self, name: str, strategy: Strategy) -> MadeFactor | None:
        """Return factor ``name`` of the result; None if it is no factor, or has no other one.

        Raises :class:`UsageError` when a configuration is missing, or ranks are not those that it has.
        """
        if not is_factor(name):
            return None
        if len(self._scales) != len(self._sides) or not all(self._scales):
            raise UsageError(
                f"{name} is a factor of an adapter, and no adapter_config.json of all sides says its scale",
                hint="commit the adapter_config.json of a LoRA beside it",
            )
        a, b = _names(name)
        if a not in self._pairs:
            self._pairs[a] = self._pair(a, b, strategy)
        pair = self._pairs[a]
        if pair is None:
            return None
        is_b = name == b
        like = pair.sides[0][is_b]
        shape = (like.shape[0], pair.rank, *like.shape[2:]) if is_b else (pair.rank, *like.shape[1:])
        return MadeFactor(Line(name, like.dtype, shape, "", ""), pair, is_b)

    def _pair(self, a: str, b: str, strategy: Strategy) -> _Pair | None:
        values = strategy.resolve(a, 0.0, len(self._sides))
        numbers = [n for n, side in enumerate(self._sides) if {a, b} <= side.by_name.keys()]
        sides = [(self._sides[n].by_name[a], self._sides[n].by_name[b]) for n in numbers]
        if not sides or not all(_usable(*pair) for pair in sides):
            return None
        module = a.removeprefix(_PREFIX)
        module = module[: module.rindex(".lora")]
        mixture = products.Mixture(
            values["type"],
            [values["weight"][n] for n in numbers],
            values["density"],
            values["majority_sign"] == "frequency",
            self._drawn(strategy, a, numbers),
        )
        scales = [self._scale(n, module, pair[0].shape[0]) for n, pair in zip(numbers, sides, strict=True)]
        rank, is_new = self._rank(mixture, values)
        if rank is None:
            rank = sides[0][0].shape[0]
        ours = self._scales[0]
        assert ours is not None
        if is_new and self.rank not in (None, rank):
            raise UsageError(f"modules of ranks {self.rank} and {rank}: one adapter_config.json has one")
        self.rank = rank if is_new else self.rank
        return _Pair(sides, scales, mixture, rank, 1.0 if is_new else ours.scale(module, rank))

    def _rank(self, mixture: Mixture, values: Mapping[str, Any]) -> tuple[int | None, bool]:
        """Return the rank of the result, None for that of the factors, and whether it is a new one."""
        ranks = [one.rank or 0 for one in self._scales if one is not None]
        if mixture.kind == "cat":
            return sum(ranks), True
        if not mixture.takes_rank:
            if values["rank"] is not None:
                raise UsageError(f"{mixture.kind} has no rank of its own", hint="svd has")
            return None, False
        rank = values["rank"] or max(ranks)
        ours = self._scales[0]
        return rank, ours is None or rank != ours.rank or bool(ours.ranks)

    def _scale(self, number: int, module: str, rank: int) -> float:
        scales = self._scales[number]
        assert scales is not None
        try:
            return scales.scale(module, rank)
        except ValueError as error:
            raise UsageError(f"{module} of side {number + 1}: {error}") from error

    def _drawn(self, strategy: Strategy, name: str, numbers: Sequence[int]) -> Any:
        density = strategy.given.get("density", 1.0)

        def drawn(number: int, factor: int, count: int) -> NDArray[np.bool_]:
            stream = randomness.key(self._seed, f"peft {factor}", name, numbers[number])
            return randomness.below(stream, 0, count, density)

        return drawn


def _usable(a: Line, b: Line) -> bool:
    """Return whether both are matrices (or kernels) of floats of one rank."""
    shaped = len(a.shape) >= 2 and len(b.shape) >= 2 and a.shape[0] == b.shape[1]
    values = all(is_averaged(line.dtype) and arith.has_values(line.dtype) for line in (a, b))
    return shaped and values and b.nbytes > 0 and all(size == 1 for size in b.shape[2:])
