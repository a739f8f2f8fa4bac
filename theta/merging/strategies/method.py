"""The interface of merge methods, which process a tensor in blocks and in two phases.

``reduce`` reads all blocks and returns values of the whole tensor (norms, thresholds); ``merge`` computes
one block of the result with them.  Blocks are on a fixed grid, and a sum over a tensor is the exactly
rounded sum of one float64 for each block.  So the result depends neither on the chunks of the store nor on
the number of threads.
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
"""Number of elements in a block; float32 temporaries of this size fit a core's cache."""

R = TypeVar("R")
Map = Callable[[Callable[["Block"], Any], Iterable["Block"]], Iterator[Any]]


@dataclass(frozen=True)
class Read:
    """Stored words of a range of elements, for each input and the base."""

    inputs: tuple[Array, ...]
    base: Array | None = None


class Statistic(Protocol):
    """A statistic of the training data of one input; its shape may differ from the tensor's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the statistic."""
        ...

    def read(self, start: int, stop: int) -> Array:
        """Return the values of the elements ``start:stop``, float32 or float64."""
        ...


class Inputs(Protocol):
    """Access to the elements of all versions of one tensor; threads may share it."""

    def read(self, start: int, stop: int) -> Read:
        """Return the words of the elements ``start:stop``."""
        ...

    def statistic(self, number: int) -> Statistic | None:
        """Return the statistic of input ``number``, or None."""
        ...


@dataclass(frozen=True)
class Block:
    """A range of elements of all inputs and of the base.

    Arrays are one-dimensional, read-only, and float32, or float64 if the tensor is.
    """

    start: int
    stop: int
    dtype: str
    read: Callable[[], Read] = field(repr=False)

    @lazy
    def words(self) -> Read:
        """The stored words."""
        return self.read()

    @lazy
    def inputs(self) -> list[Array]:
        """The values of each input."""
        return [widen(words, self.dtype) for words in self.words.inputs]

    @lazy
    def base(self) -> Array:
        """The values of the base, which must exist."""
        assert self.words.base is not None
        return widen(self.words.base, self.dtype)

    @lazy
    def deltas(self) -> list[Array]:
        """The differences of each input and the base."""
        return [values - self.base for values in self.inputs]


def one_by_one(work: Callable[[Block], Any], blocks: Iterable[Block]) -> Iterator[Any]:
    """Yield ``work(block)`` for all ``blocks`` in order, computed on the calling thread."""
    return map(work, blocks)


@dataclass(frozen=True)
class StoredForm:
    """The dtype and the shape that an input has in its checkpoint."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """One tensor to merge, or the rows of it that some inputs have in common.

    Attributes:
        name: name of the tensor.
        dtype: the dtype in which all versions are read.
        shape: the shape of all versions, or of their rows in common where some have more.
        values: parameter -> value, or a list with one for each input if it is per model.
        inputs: access to the elements.
        models: the number of each input among the sides, from 0; inputs of weight 0 are left out.
        has_base: there is a base of this dtype and shape.
        strategy: name of the strategy.
        seed: the seed of random methods.
        parallel: maps a function over blocks, in order.
        first_row: the number of the first row of the job in the whole tensor.
        forms: each input as its checkpoint has it.
        keeps: the statistic for the next merge is computed, and not the tensor.
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
    parallel: Map = one_by_one
    first_row: int = 0
    forms: tuple[StoredForm, ...] = ()
    keeps: bool = False

    @property
    def count(self) -> int:
        """The number of inputs."""
        return len(self.models)

    @property
    def size(self) -> int:
        """The number of elements; a complex number counts as two."""
        return math.prod(self.shape) * (2 if self.dtype == "c64" else 1)

    @lazy
    def wide(self) -> np.dtype[Any]:
        """The dtype of computations: float64 for f64, otherwise float32."""
        return np.dtype(np.float64 if self.dtype == "f64" else np.float32)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def blocks(self, step: int = BLOCK) -> Iterator[Block]:
        """Yield all blocks in order."""
        return (self.block(start, min(start + step, self.size)) for start in range(0, self.size, step))

    def block(self, start: int, stop: int) -> Block:
        """Return the block of the elements ``start:stop``."""
        return Block(start, stop, self.dtype, lambda: self.inputs.read(start, stop))

    def whole(self) -> Block:
        """Return the whole tensor as one block."""
        return self.block(0, self.size)

    def scan(self, work: Callable[[Block], R], step: int = BLOCK) -> Iterator[R]:
        """Yield ``work(block)`` of every block in order, computed on threads if the tensor is large."""
        return self.parallel(work, self.blocks(step))

    def totals(self, work: Callable[[Block], Sequence[float]]) -> list[float]:
        """Return the sums over all blocks of the numbers that ``work`` returns, each rounded once."""
        return [_sum(column) for column in zip(*self.scan(work), strict=True)]

    def statistics(self, shape: tuple[int, ...]) -> list[Statistic] | None:
        """Return the statistic of each input; None when one is missing or not of ``shape``."""
        found = [self.inputs.statistic(number) for number in range(self.count)]
        if any(item is None or item.shape != shape for item in found):
            return None
        return [item for item in found if item is not None]

    def only(self, kept: Sequence[int]) -> Job:
        """Return the job with only the inputs ``kept``, in that order."""
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
            forms=tuple(self.forms[n] for n in kept) if self.forms else (),
        )


def _sum(values: Iterable[float]) -> float:
    """Return the correctly rounded sum, with infinities and NaNs as in IEEE 754."""
    listed = list(values)
    try:
        return math.fsum(listed)
    except (OverflowError, ValueError):
        return sum(listed)


@dataclass(frozen=True)
class _Some:
    """A selection of the inputs of a tensor, in a given order."""

    inner: Inputs
    kept: tuple[int, ...]

    def read(self, start: int, stop: int) -> Read:
        found = self.inner.read(start, stop)
        return Read(tuple(found.inputs[n] for n in self.kept), found.base)

    def statistic(self, number: int) -> Statistic | None:
        return self.inner.statistic(self.kept[number])


class Method:
    """A strategy that computes; plug-ins derive from it and define ``name``, ``summary`` and ``merge``.

    The engine checks the requirements in the class attributes before it calls ``reduce``.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    min_inputs: ClassVar[int] = 1
    max_inputs: ClassVar[int | None] = None
    needs_base: ClassVar[bool] = False
    uses_base: ClassVar[bool] = False
    """Whether it uses a base if there is one."""
    symmetric: ClassVar[bool] = False
    """Whether the order of the inputs does not matter; they are then sorted by digest."""
    uses_statistics: ClassVar[bool] = False
    statistics_by_element: ClassVar[bool] = False
    """Whether a statistic has a value for each element of the tensor, and so rows as the tensor has."""
    keeps_statistic: ClassVar[bool] = False
    """Whether :meth:`keep` computes a statistic that the next merge gets for each input.

    Such a method is asked about each tensor that a side changed, or that it kept a statistic of; a side
    whose checkpoint is that of the base is no input.
    """
    one_side: ClassVar[bool] = False
    """Whether parameters may choose one side, as :meth:`only_side` tells."""
    equal_agree: ClassVar[bool] = True
    """Whether the result of equal inputs is that input."""

    def complete(self, values: Mapping[str, Any], count: int) -> Mapping[str, Any]:
        """Check and complete the parameters for ``count`` inputs; raises :class:`UsageError`."""
        return values

    def only_side(self, values: Mapping[str, Any]) -> int | None:
        """Return the number of the only side that the result depends on, from 0; None when all count.

        That side is then the only input, whether it changed the tensor or not, and no other makes a conflict.
        """
        return None

    def takes_side(self, values: Mapping[str, Any]) -> bool:
        """Return whether the result is the version of :meth:`only_side`, whatever its dtype and shape."""
        return False

    def picks(self, job: Job) -> int | None:
        """Return the number of the input that the parameters select unchanged, or None."""
        return None

    def whole(self, job: Job) -> bool:
        """Return whether ``merge`` needs the whole tensor as one block, which takes more memory."""
        return False

    def sorts(self, job: Job) -> bool:
        """Return whether the inputs are sorted by digest, so that their order changes no bit."""
        return self.symmetric

    def keeps_equal(self, job: Job) -> bool:
        """Return whether elements that are equal in all inputs must stay the same bit for bit."""
        return False

    def reduce(self, job: Job) -> Any:
        """Compute the argument ``stats`` of :meth:`merge` from the whole tensor."""
        return None

    def at_once(self, job: Job, block: Block, stats: Any) -> Array | None:
        """Return the words of one block where one pass computes, rounds and checks them; otherwise None."""
        return None

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Return one block of the result, in the dtype of the block's arrays."""
        raise NotImplementedError

    def keep(self, job: Job, block: Block, stats: Any) -> Array:
        """Return one block of the statistic for the next merge, if :attr:`keeps_statistic`."""
        raise NotImplementedError
