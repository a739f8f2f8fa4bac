"""Orthogonal matching pursuit: a row as a combination of a few others (Pati et al., 1993).

This is how a model gets a row for a token that only another model has (arXiv:2506.06607): the row of the
other model is written with rows of tokens that both have, and the same combination of this model's rows is
the new row.  Rows are chosen by the largest absolute inner product with what is left, as there; they are not
scaled to length 1 first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta._blas import one_thread
from theta._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Matrix = NDArray[np.float64]

MOST: Final = 1024
"""The largest number of rows that are combined."""
_ROWS: Final = 4096
"""Rows of the dictionary that are read at a time."""
_ROOM: Final = 64 << 20
"""Bytes for the targets that are computed together."""
_SMALL: Final = 2.0**-40
"""The share of its length below which a row adds nothing to those that were chosen before."""


@dataclass(frozen=True)
class Combination:
    """The targets ``start:stop`` as combinations.

    Attributes:
        start: the first target.
        stop: the number after the last target.
        numbers: the rows of the dictionary, shape (targets, terms).
        weights: their factors, float64 of the same shape; 0 for a row that adds nothing.
    """

    start: int
    stop: int
    numbers: NDArray[np.int64]
    weights: Matrix


Take = Callable[["NDArray[np.int64]"], "Array"]
"""Returns the rows of a dictionary with the given numbers, in any float dtype."""


def combinations(targets: Array, take: Take, count: int, terms: int) -> Iterator[Combination]:
    """Yield each of ``targets`` (number, width) as a combination of ``terms`` of ``count`` rows.

    A combination has no more terms than there are rows, or columns.  Memory is bounded for any number of
    targets.
    """
    width = targets.shape[1]
    terms = min(terms, count, width)
    step = max(1, _ROOM // (8 * (width * (terms + 2) + _ROWS)))
    for start in range(0, len(targets), step):
        some = targets[start : start + step].astype(np.float64)
        with one_thread, np.errstate(all="ignore"):
            numbers, weights = _pursued(some, take, count, terms)
        yield Combination(start, start + len(some), numbers, weights)


def _pursued(targets: Matrix, take: Take, count: int, terms: int) -> tuple[NDArray[np.int64], Matrix]:
    size, width = targets.shape
    basis, upper = np.zeros((size, terms, width)), np.zeros((size, terms, terms))
    numbers, left = np.zeros((size, terms), np.int64), targets.copy()
    for term in range(terms):
        numbers[:, term] = chosen = _nearest(left, take, count, numbers[:, :term])
        rows = take(chosen).astype(np.float64)
        lengths, rest = np.linalg.norm(rows, axis=1), rows
        for _ in range(2):  # once more, so that rounding leaves nothing of the others in it
            shares = np.einsum("ntw,nw->nt", basis[:, :term], rest)
            rest = rest - np.einsum("ntw,nt->nw", basis[:, :term], shares)
            upper[:, :term, term] += shares
        norms = np.linalg.norm(rest, axis=1)
        is_new = norms > _SMALL * lengths
        basis[:, term] = np.where(is_new[:, None], rest / np.where(is_new, norms, 1)[:, None], 0)
        upper[:, term, term] = np.where(is_new, norms, 1)
        left = left - np.einsum("nw,nw->n", basis[:, term], left)[:, None] * basis[:, term]
    shares = np.einsum("ntw,nw->nt", basis, targets)
    weights: Matrix = np.linalg.solve(upper, shares[:, :, None])[:, :, 0]
    return numbers, weights


def _nearest(left: Matrix, take: Take, count: int, taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each target the row with the largest inner product, the first of several equal ones."""
    best, found = np.full(len(left), -1.0), np.zeros(len(left), np.int64)
    for start in range(0, count, _ROWS):
        scores = np.abs(left @ take(np.arange(start, min(start + _ROWS, count))).astype(np.float64).T)
        places = taken - start
        targets, terms = np.nonzero((places >= 0) & (places < scores.shape[1]))
        scores[targets, places[targets, terms]] = -1
        here = scores.argmax(axis=1)
        values = scores[np.arange(len(left)), here]
        better = values > best
        best[better], found[better] = values[better], here[better] + start
    return found
