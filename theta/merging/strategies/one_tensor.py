"""A method on one tensor: what all of them have in common.

Inputs that are all equal are the result; inputs of weight 0 are left out; parameters that name one
input return its bits; numbers that are not finite must have been there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from theta.errors import ThetaError
from theta.merging.strategies import registry
from theta.merging.strategies.method import BLOCK, Block, Job, Method, Read, Statistic
from theta.merging.strategies.strategy import Strategy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def narrowed(method: Method, job: Job, order: Sequence[Any] | None = None) -> Job:
    """``job`` without inputs of weight 0, in an order of its own where order means nothing.

    Args:
        method: the method.
        job: the tensor.
        order: a key for each input, equal for equal contents.
    """
    weights = job.values.get("weight")
    kept = list(range(job.count))
    if isinstance(weights, list) and any(weights):
        kept = [number for number in kept if weights[number] != 0]
    if method.symmetric and order is not None and len(kept) > 2:
        kept.sort(key=lambda number: (order[number], number))
    return job.only(kept)


def result(method: Method, job: Job, *, allow_nan: bool = False) -> Iterator[Array]:
    """The words of the merged tensor, block by block.

    Raises :class:`ThetaError` with the tensor's name where a number that is not finite would come out of
    numbers that were, unless ``allow_nan``.
    """
    import numpy as np

    def reduced() -> Any:
        with np.errstate(all="ignore"):
            return method.reduce(job)

    def work(block: Block) -> Array:
        with np.errstate(all="ignore"):
            return _block(method, job, block, stats, allow_nan=allow_nan)

    stats = reduced()
    yield from job.scan(work, job.size if method.whole(job) else BLOCK)


def _block(method: Method, job: Job, block: Block, stats: Any, *, allow_nan: bool) -> Array:
    from theta.merging.strategies.numbers import keep_equal, narrow

    words = narrow(method.merge(job, block, stats), job.dtype)
    if method.keeps_equal(job):
        keep_equal(words, block.words.inputs)
    if not allow_nan:
        _refuse_new(method, job, block, words)
    return words


def _refuse_new(method: Method, job: Job, block: Block, words: Array) -> None:
    import numpy as np

    from theta.merging.strategies.numbers import finite

    fine = finite(words, job.dtype)
    if fine.all():
        return
    read = block.words
    for before in [*read.inputs, *([] if read.base is None else [read.base])]:
        fine |= ~finite(before, job.dtype)
    if not fine.all():
        place = block.start + int(np.argmin(fine))
        raise ThetaError(
            f"{job.name}: {method.name} makes NaN or infinity of finite numbers (first at element {place})",
            hint="settle it with a rule of its own: --rule 'NAME=average', or allow it with --allow-nan",
        )


def arrays(
    strategy: Strategy,
    inputs: Sequence[Array],
    base: Array | None = None,
    *,
    dtype: str,
    shape: tuple[int, ...],
    name: str = "",
    position: float = 0.0,
    statistics: Sequence[Array | None] = (),
    seed: int = 0,
    allow_nan: bool = False,
    parallel: Callable[..., Iterator[Any]] | None = None,
) -> Array:
    """Merge tensors in memory, given as one-dimensional words; the words of the result.

    Raises :class:`ThetaError` where the method has no answer, :class:`UsageError` for its parameters.
    """
    import numpy as np

    method = registry.method(strategy.name)
    job = Job(
        name=name,
        dtype=dtype,
        shape=shape,
        values=strategy.resolve(name, position, len(inputs)),
        inputs=Held(tuple(inputs), base, tuple(statistics)),
        models=tuple(range(len(inputs))),
        has_base=base is not None,
        strategy=strategy.name,
        seed=seed,
    )
    if parallel is not None:
        job = replace(job, parallel=parallel)
    agree = method.equal_agree and len(inputs) > 1
    if not job.size or (agree and all(np.array_equal(inputs[0], words) for words in inputs[1:])):
        return inputs[0]
    job = narrowed(method, job, [words.tobytes() for words in inputs] if job.count > 2 else None)
    picked = method.picks(job)
    if picked is not None:
        return inputs[job.models[picked]]
    return np.concatenate(list(result(method, job, allow_nan=allow_nan)))


@dataclass(frozen=True)
class Held:
    """Inputs in memory; statistics are arrays in their own shapes."""

    inputs: tuple[Array, ...]
    base: Array | None
    statistics: tuple[Array | None, ...] = ()

    def read(self, start: int, stop: int) -> Read:
        """The elements from ``start`` to before ``stop``."""
        base = None if self.base is None else self.base[start:stop]
        return Read(tuple(words[start:stop] for words in self.inputs), base)

    def statistic(self, number: int) -> Statistic | None:
        """The statistic of input ``number``."""
        found = self.statistics[number] if self.statistics else None
        return None if found is None else _HeldStatistic(found)


@dataclass(frozen=True)
class _HeldStatistic:
    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, start: int, stop: int) -> Array:
        part: Array = self.values.reshape(-1)[start:stop]
        return part
