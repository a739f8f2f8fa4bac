"""What a strategy computes with: a tensor in blocks, in two phases.

``reduce`` looks at all blocks and returns what ``merge`` needs to know of the whole tensor (norms,
thresholds); ``merge`` makes one block of the result.  Blocks lie on a fixed grid and every sum
over a tensor is the exactly rounded sum of one float64 for each block, so neither the chunks of
the store nor the number of threads show in the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

from theta._numpy import np
from theta.lazy import lazy
from theta.merging.strategies.numbers import widen
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

BLOCK: Final = 1 << 16
"""Elements of a block; float32 temporaries of this size stay in a core's cache."""

R = TypeVar("R")
Map = Callable[[Callable[["Block"], Any], Iterable["Block"]], Iterator[Any]]


@dataclass(frozen=True)
class Read:
    """Elements of one tensor as they are stored: the words of each input and of the base."""

    inputs: tuple[Array, ...]
    base: Array | None = None


class Statistic(Protocol):
    """What is known of the data behind one input: a tensor of its own shape."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        ...

    def read(self, start: int, stop: int) -> Array:
        """The values from element ``start`` to before ``stop``, float32 or float64."""
        ...


class Inputs(Protocol):
    """Access to the elements of all versions of one tensor; threads may share it."""

    def read(self, start: int, stop: int) -> Read:
        """The elements from ``start`` to before ``stop``."""
        ...

    def statistic(self, number: int) -> Statistic | None:
        """The statistic of input ``number``; none without one."""
        ...


@dataclass(frozen=True)
class Block:
    """Some elements of a tensor: of each input and of the base.

    Arrays are one-dimensional, float32 (float64 where the tensor is), and may not be written to.
    """

    start: int
    stop: int
    read: Callable[[], Read] = field(repr=False)
    wide: Callable[[Array], Array] = field(repr=False)

    @lazy
    def words(self) -> Read:
        """The elements as they are stored."""
        return self.read()

    @lazy
    def inputs(self) -> list[Array]:
        """The values of each input."""
        return [self.wide(words) for words in self.words.inputs]

    @lazy
    def base(self) -> Array:
        """The values of the base, which must be there."""
        assert self.words.base is not None
        return self.wide(self.words.base)

    @lazy
    def deltas(self) -> list[Array]:
        """Each input less the base."""
        return [values - self.base for values in self.inputs]


def _one_by_one(work: Callable[[Block], Any], blocks: Iterable[Block]) -> Iterator[Any]:
    return map(work, blocks)


@dataclass(frozen=True)
class Job:
    """One tensor to merge: what it is, the parameters for it, and its elements in blocks.

    ``values`` has a number for each parameter, and a list (one for each input) where the parameter
    is per model.  ``models`` numbers the inputs as the user counts them, from 0, also where
    inputs of weight 0 were left out.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: Mapping[str, Any]
    inputs: Inputs
    models: tuple[int, ...]
    has_base: bool
    strategy: str = ""
    seed: int = 0
    parallel: Map = _one_by_one

    @property
    def count(self) -> int:
        """The number of inputs."""
        return len(self.models)

    @property
    def size(self) -> int:
        """The number of elements; a complex number is two."""
        return math.prod(self.shape) * (2 if self.dtype == "c64" else 1)

    @lazy
    def wide(self) -> np.dtype[Any]:
        """The type to compute in: float64 for f64, else float32."""
        return np.dtype(np.float64 if self.dtype == "f64" else np.float32)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def blocks(self, step: int = BLOCK) -> Iterator[Block]:
        """All blocks, in order."""
        return (self.block(start, min(start + step, self.size)) for start in range(0, self.size, step))

    def block(self, start: int, stop: int) -> Block:
        """The block from element ``start`` to before ``stop``."""
        return Block(
            start, stop, lambda: self.inputs.read(start, stop), lambda words: widen(words, self.dtype)
        )

    def whole(self) -> Block:
        """The tensor as one block."""
        return self.block(0, self.size)

    def scan(self, work: Callable[[Block], R], step: int = BLOCK) -> Iterator[R]:
        """``work`` of every block, in order; on threads where the tensor is large."""
        return self.parallel(work, self.blocks(step))

    def totals(self, work: Callable[[Block], Sequence[float]]) -> list[float]:
        """The sums over all blocks of the numbers that ``work`` returns, each rounded once."""
        return [_sum(column) for column in zip(*self.scan(work), strict=True)]

    def only(self, kept: Sequence[int]) -> Job:
        """The job with the inputs ``kept``, in that order."""
        if list(kept) == list(range(self.count)):
            return self
        values = {
            key: [value[n] for n in kept] if isinstance(value, list) else value
            for key, value in self.values.items()
        }
        return replace(
            self,
            values=values,
            inputs=_Some(self.inputs, tuple(kept)),
            models=tuple(self.models[n] for n in kept),
        )


def _sum(values: Iterable[float]) -> float:
    """The correctly rounded sum; infinities and NaNs as IEEE 754 adds them."""
    listed = list(values)
    try:
        return math.fsum(listed)
    except (OverflowError, ValueError):
        return sum(listed)


@dataclass(frozen=True)
class _Some:
    """Some of the inputs of a tensor, in a given order."""

    inner: Inputs
    kept: tuple[int, ...]

    def read(self, start: int, stop: int) -> Read:
        found = self.inner.read(start, stop)
        return Read(tuple(found.inputs[n] for n in self.kept), found.base)

    def statistic(self, number: int) -> Statistic | None:
        return self.inner.statistic(self.kept[number])


class Method:
    """A strategy that computes; plug-ins derive from this and have ``name``, ``summary`` and ``merge``.

    Class attributes say what it needs; the engine checks that before ``reduce`` runs.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    min_inputs: ClassVar[int] = 1
    max_inputs: ClassVar[int | None] = None
    needs_base: ClassVar[bool] = False
    uses_base: ClassVar[bool] = False
    """Whether it looks at a base where there is one."""
    symmetric: ClassVar[bool] = False
    """Whether the order of the inputs means nothing; they are put into an order of their own then."""
    uses_statistics: ClassVar[bool] = False
    equal_agree: ClassVar[bool] = True
    """Whether inputs that are all equal are the result."""

    def complete(self, values: Mapping[str, Any], count: int) -> Mapping[str, Any]:
        """The parameters for ``count`` inputs; :class:`UsageError` where they do not go together."""
        return values

    def picks(self, job: Job) -> int | None:
        """The input that the parameters take as it is, by its number in the job."""
        return None

    def whole(self, job: Job) -> bool:
        """Whether ``merge`` wants the tensor as one block; else memory is bounded by blocks."""
        return False

    def keeps_equal(self, job: Job) -> bool:
        """Whether elements that are equal in all inputs stay as they are, bit for bit."""
        return False

    def reduce(self, job: Job) -> Any:
        """What ``merge`` must know of the whole tensor."""
        return None

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """One block of the result, in the type that the block's arrays have."""
        raise NotImplementedError
