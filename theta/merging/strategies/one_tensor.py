"""Applying a method to one tensor, with the rules that all methods share.

Equal inputs are the result; inputs of weight 0 are dropped; a selected input is copied bit for bit; the
result must not have new infinities or NaNs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from theta._numpy import np
from theta.errors import ThetaError
from theta.merging.strategies.method import BLOCK, Block, Job, Method
from theta.merging.strategies.numbers import finite, keep_equal, narrow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def agree(method: Method, keys: Sequence[Any]) -> bool:
    """Return whether all inputs are equal and so are the result; ``keys`` are equal for equal contents."""
    return method.equal_agree and len(keys) > 1 and len(set(keys)) == 1


def narrowed(method: Method, job: Job, keys: Sequence[Any]) -> Job:
    """Return ``job`` without inputs of weight 0, sorted by ``keys`` if the method is symmetric."""
    weights = job.values.get("weight")
    kept = list(range(job.count))
    if isinstance(weights, list) and any(weights):
        kept = [number for number in kept if weights[number] != 0]
    if method.sorts(job) and len(kept) > 2:
        kept.sort(key=lambda number: (keys[number], number))
    return job.only(kept)


def result(method: Method, job: Job, *, allow_nan: bool = False) -> Iterator[Array]:
    """Yield the words of the merged tensor, block by block.

    Raises :class:`ThetaError` with the tensor's name if finite inputs give NaN or infinity, unless
    ``allow_nan``.
    """

    def reduced() -> Any:
        with np.errstate(all="ignore"):
            return method.reduce(job)

    def work(block: Block) -> Array:
        with np.errstate(all="ignore"):
            return _block(method, job, block, stats, allow_nan=allow_nan)

    stats = reduced()
    yield from job.scan(work, job.size if method.whole(job) else BLOCK)


def _block(method: Method, job: Job, block: Block, stats: Any, *, allow_nan: bool) -> Array:
    if (known := method.at_once(job, block, stats)) is not None:
        return known
    values = method.keep(job, block, stats) if job.keeps else method.merge(job, block, stats)
    words = narrow(values, job.dtype)
    if method.keeps_equal(job):
        keep_equal(words, block.words.inputs)
    if not allow_nan:
        _refuse_new(method, job, block, words)
    return words


def _refuse_new(method: Method, job: Job, block: Block, words: Array) -> None:
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
