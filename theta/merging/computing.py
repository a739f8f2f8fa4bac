"""Computing one tensor of a merge by a method, from stored inputs."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice
from typing import Any, Final, Protocol

from theta.errors import CorruptError, MissingObjectsError, UsageError
from theta.lazy import lazy
from theta.merging import geometry, reading, storing
from theta.merging.adapters.factor_pairs import MadeFactor
from theta.merging.geometry import Geometry, RowRange
from theta.merging.reading import StoredInputs
from theta.merging.shapes import by_token, uneven
from theta.merging.shapes.by_token import TokenRows
from theta.merging.states import Conflict
from theta.merging.storing import Outlet
from theta.merging.strategies import Strategy, one_tensor, registry
from theta.merging.strategies.method import Block, Inputs, Job, Method, StoredForm, one_by_one
from theta.parallel import workers
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.objects import Objects
from theta.store.read.coming_file import Place
from theta.store.read.stored_tensor import StoredTensor
from theta.store.write.layer_plan import Planned

_BATCH: Final = 32
"""The number of blocks that one thread takes at a time: about as many as share a chunk."""

Computed = Line | Planned | storing.Streamed
"""A version that is already stored, or a new one to write."""


@dataclass(frozen=True)
class Task:
    """A tensor to compute.

    Attributes:
        conflict: the versions of the tensor.
        strategy: the strategy.
        values: its parameters for this tensor.
        statistics: the statistic of each input, or None; empty if the method uses none.
        seed: the seed of random methods.
        allow_nan: accept NaN and infinity in the result.
        places: for each input a place in a file that may have its bytes.
        outlets: receive the bytes of the result in addition to the repository.
        compare: compare the result with its parents when it is stored.
        dtype: dtype of the result; None for that of the first side.
        spans: the sides that rows are taken from, if the strategy does not decide that.
        made: the factor of an adapter that this is, if both of its module are computed together.
        keeps: the statistic that the strategy keeps for the next merge is computed, and not the tensor.
        agreeing: inputs that are equal are the result; otherwise the method computes with them too.
        tokens: where the rows come from, if they are matched by token.
    """

    conflict: Conflict
    strategy: Strategy
    values: Mapping[str, Any] = field(compare=False)
    statistics: tuple[Line | None, ...] = ()
    seed: int = 0
    allow_nan: bool = False
    places: tuple[Place | None, ...] = field(default=(), compare=False)
    outlets: list[Outlet] = field(default_factory=list, compare=False)
    compare: bool = field(default=True, compare=False)
    dtype: str | None = None
    spans: tuple[RowRange, ...] = ()
    made: MadeFactor | None = field(default=None, compare=False)
    keeps: bool = False
    agreeing: bool = True
    tokens: TokenRows | None = field(default=None, compare=False)

    def kept(self) -> Task:
        """Return the task that computes what the strategy keeps for the next merge, in f32 or f64."""
        dtype = "f64" if self.geometry.computing == "f64" else "f32"
        return replace(self, keeps=True, dtype=dtype, outlets=[], places=())

    @property
    def method(self) -> Method:
        """The method of the strategy."""
        return registry.method(self.strategy.name)

    @lazy
    def like(self) -> Line:
        """A line with the name, dtype and shape of the result."""
        if self.made is not None:
            return self.made.like
        first, geometry = self.sides[0], self.geometry
        if (first.dtype, first.shape) == (geometry.dtype, geometry.shape):
            return first
        return Line(first.name, geometry.dtype, geometry.shape, "", "")

    @lazy
    def geometry(self) -> Geometry:
        """The dtype and shape of the result, and the dtype in which it is computed."""
        found = self.conflict.geometry
        assert found is not None
        found = replace(found, spans=self.spans or found.spans)
        return found if self.dtype is None else geometry.in_dtype(found, self.dtype)

    @property
    def is_even(self) -> bool:
        """Whether all inputs, the base and the result have one dtype and shape."""
        lines = [*self.sides, *filter(None, [self.base])]
        return all((line.dtype, line.shape) == (self.like.dtype, self.like.shape) for line in lines)

    @property
    def sides(self) -> list[Line]:
        """The versions that are the inputs."""
        return [side for side in self.conflict.changed if side is not None]

    @property
    def base(self) -> Line | None:
        """The base if the method uses it, otherwise None."""
        method = self.method
        wanted = method.needs_base or method.uses_base or self.values.get("use_base")
        return self.conflict.usable_base if wanted else None

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that determines the result except the name; equal for tied tensors."""
        if self.made is not None:
            return (str(self.strategy), self.made.like)
        known = [line.digest if line else "" for line in self.statistics]
        base = self.base
        digests = [side.digest for side in self.sides]
        return (
            str(self.strategy),
            repr(sorted(self.values.items())),
            *digests,
            base.digest if base else "",
            self.geometry.dtype,
            self.spans,
            self.conflict.changed_numbers,
            self.keeps,
            self.tokens is not None,
            *known,
        )


class TaskOptions(Protocol):
    """The options of a merge that a task depends on."""

    @property
    def statistics(self) -> Sequence[Manifest | None]:
        """The checkpoint of statistics of each side, or None."""
        ...

    @property
    def kept(self) -> Manifest | None:
        """The checkpoint of statistics that the strategy kept at the base, or None."""
        ...

    @property
    def seed(self) -> int:
        """The seed of random methods."""
        ...

    @property
    def allow_nan(self) -> bool:
        """Accept NaN and infinity in the result."""
        ...


def task(
    conflict: Conflict,
    strategy: Strategy,
    position: float,
    options: TaskOptions,
) -> Task:
    """Return the task that settles ``conflict``; raises :class:`UsageError` for unsuitable parameters."""
    statistics = options.statistics
    numbers = conflict.changed_numbers
    found = strategy.resolve(conflict.name, position, len(conflict.sides))
    values = {
        key: [value[n] for n in numbers] if isinstance(value, list) else value for key, value in found.items()
    }
    known: tuple[Line | None, ...] = ()
    if registry.method(strategy.name).keeps_statistic:
        known = (options.kept.by_name.get(conflict.name) if options.kept else None,) * len(numbers)
    elif registry.method(strategy.name).uses_statistics:
        if not any(statistics):
            raise UsageError(f"{strategy.name} needs statistics of the sides", hint="give --statistics")
        manifests = [statistics[n] if n < len(statistics) else None for n in numbers]
        known = tuple(m.by_name.get(conflict.name) if m else None for m in manifests)
    return Task(conflict, strategy, values, known, options.seed, options.allow_nan)


def taken(conflict: Conflict, spans: Sequence[RowRange]) -> Task:
    """Return the task that takes rows as they are, each from the only side of its span."""
    return Task(conflict, Strategy("passthrough"), {"scale": 1.0, "input": 1}, spans=tuple(spans))


def cast(line: Line, dtype: str) -> Task:
    """Return the task that rounds the values of ``line`` to ``dtype``."""
    return replace(taken(Conflict(line.name, None, line, None), ()), dtype=dtype)


def by_tokens(item: Task, rows: TokenRows) -> Task:
    """Return ``item``, whose rows are matched by token."""
    return replace(item, tokens=rows, spans=rows.spans)


def compute(objects: Objects, item: Task) -> Computed:
    """Run the method without writing anything.

    Raises :class:`ThetaError` if the strategy has no result, or one that is not finite.
    """
    if item.made is not None:
        made = item.made
        return storing.plan(objects, made.like, lambda: iter([made.words(objects)]), [], item.outlets)
    if item.tokens is not None:
        return _matched(objects, item, item.tokens)
    like, sides, base = item.like, item.sides, item.base
    if not like.nbytes and like.digest:
        return like
    if like.nbytes <= reading.KEPT_WHOLE:
        objects = objects.remembering()  # sides and base mostly share chunks
    method, digests = item.method, [side.digest for side in sides]
    if item.agreeing and item.is_even and one_tensor.agree(method, digests):
        return like
    inputs = StoredInputs(objects, sides, base, item.statistics, item.places)
    whole = job_of(item, inputs)
    job = one_tensor.narrowed(method, whole, digests) if not item.geometry.spans else whole
    picked = method.picks(job) if not item.geometry.spans else None
    if picked is not None:
        side = sides[item.conflict.changed_numbers.index(job.models[picked])]
        if (side.dtype, side.shape) == (like.dtype, like.shape):
            return side
    pieces = lambda: one_tensor.result(method, job, allow_nan=item.allow_nan)  # noqa: E731
    if not item.is_even:
        pieces = partial(
            uneven.result, method, whole, inputs, item.geometry, digests, allow_nan=item.allow_nan
        )
    parents = _parents(objects, item, inputs) if not item.keeps else _last_kept(objects, item)
    by_numbers = item.is_even and not method.whole(job)
    return storing.plan(
        objects, like, pieces, parents, item.outlets, compare=item.compare, by_numbers=by_numbers
    )


def _matched(objects: Objects, item: Task, rows: TokenRows) -> Computed:
    """Compute a tensor whose rows are matched by token."""
    rows = rows if item.base is not None else replace(rows, base=None)
    stored = StoredInputs(objects, rows.sides, rows.base, item.statistics)
    inputs = by_token.TokenInputs(objects, rows, stored)
    digests = [side.digest for side in rows.sides]
    whole = job_of(item, stored)
    pieces = partial(
        uneven.result, item.method, whole, inputs, item.geometry, digests, allow_nan=item.allow_nan
    )
    parents = stored.sides if stored.base is None else [*stored.sides, stored.base]
    return storing.plan(
        objects, item.like, lambda: inputs.in_order(pieces), parents, item.outlets, compare=item.compare
    )


def _parents(objects: Objects, item: Task, inputs: StoredInputs) -> list[StoredTensor]:
    """Return the versions that the result may be stored relative to: the sides, and the base if present."""
    base, line = inputs.base, item.conflict.usable_base
    if base is None and line is not None and objects.has(line.tree):
        with contextlib.suppress(MissingObjectsError, CorruptError):
            base = reading.opened(objects, line)
    return inputs.sides if base is None else [*inputs.sides, base]


def _last_kept(objects: Objects, item: Task) -> list[StoredTensor]:
    """Return the statistic that the strategy kept before, if its objects are here."""
    line = next(filter(None, item.statistics), None)
    return [reading.opened(objects, line)] if line is not None and objects.has(line.tree) else []


def job_of(item: Task, inputs: Inputs) -> Job:
    """Return the work of the method on ``inputs``."""
    like, base = item.like, item.base
    return Job(
        name=like.name,
        dtype=like.dtype,
        shape=like.shape,
        values=item.values,
        inputs=inputs,
        models=item.conflict.changed_numbers,
        has_base=base is not None,
        strategy=item.strategy.name,
        seed=item.seed,
        parallel=in_batches if like.nbytes > reading.SHARED else one_by_one,
        forms=tuple(StoredForm(side.dtype, side.shape) for side in item.sides),
        keeps=item.keeps,
    )


def in_batches(work: Callable[[Block], Any], blocks: Iterable[Block]) -> Iterator[Any]:
    """Yield ``work(block)`` for all ``blocks`` in order, computed on threads in batches of neighbours."""

    def each(batch: list[Block]) -> list[Any]:
        batch.reverse()  # a block caches what it reads, so it is dropped at once
        return [work(batch.pop()) for _ in range(len(batch))]

    unread = iter(blocks)
    batches = iter(lambda: list(islice(unread, _BATCH)), [])
    waiting: deque[Future[list[Any]]] = deque()
    try:
        for batch in batches:
            waiting.append(_pool().submit(each, batch))
            if len(waiting) > workers():
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@cache
def _pool() -> ThreadPoolExecutor:
    """Return the pool for all large tensors: threads of a new pool for each pass would each keep memory."""
    return ThreadPoolExecutor(workers(), "merge")


def weight(item: Task) -> int:
    """Return approximately the peak memory of a task in bytes."""
    versions = len(item.sides) + (item.base is not None)
    kept = min(item.like.nbytes, reading.KEPT_WHOLE) * versions
    return kept + 2 * item.like.nbytes
