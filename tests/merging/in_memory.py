"""Methods on tensors in memory: what the engine does with stored ones, without a repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta.merging.strategies import Job, Strategy, one_tensor, registry
from theta.merging.strategies.method import Read, Statistic

Array = NDArray[Any]
Parallel = Callable[..., Iterator[Any]]


@dataclass(frozen=True)
class Geometry:
    """The dtype and the shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    name: str = "t"


def merge_arrays(
    strategy: Strategy,
    inputs: Sequence[Array],
    base: Array | None,
    like: Geometry,
    *,
    statistics: Sequence[Array | None] = (),
    parallel: Parallel | None = None,
    **options: Any,
) -> Array:
    """The words of the merge of tensors that are given as one-dimensional words.

    ``options``: ``seed``, and ``allow_nan``.
    """
    allow_nan = options.pop("allow_nan", False)
    method = registry.method(strategy.name)
    job = Job(
        name=like.name,
        dtype=like.dtype,
        shape=like.shape,
        values=strategy.resolve(like.name, 0.0, len(inputs)),
        inputs=_Held(tuple(inputs), base, tuple(statistics)),
        models=tuple(range(len(inputs))),
        has_base=base is not None,
        strategy=strategy.name,
        **options,
    )
    job = job if parallel is None else replace(job, parallel=parallel)
    keys = [words.tobytes() for words in inputs]
    if not job.size or one_tensor.agree(method, keys):
        return inputs[0]
    job = one_tensor.narrowed(method, job, keys)
    picked = method.picks(job)
    if picked is not None:
        return inputs[job.models[picked]]
    return np.concatenate(list(one_tensor.result(method, job, allow_nan=allow_nan)))


@dataclass(frozen=True)
class _Held:
    inputs: tuple[Array, ...]
    base: Array | None
    statistics: tuple[Array | None, ...]

    def read(self, start: int, stop: int) -> Read:
        base = None if self.base is None else self.base[start:stop]
        return Read(tuple(words[start:stop] for words in self.inputs), base)

    def statistic(self, number: int) -> Statistic | None:
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
