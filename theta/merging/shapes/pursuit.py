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
_ROWS: Final = 1024
"""Rows of the dictionary that are read at a time."""
_ROOM: Final = 256 << 20
"""Bytes for the targets that are computed together: for each of their terms the dictionary is read once."""
_CHOSEN: Final = 16 << 20
"""Bytes for the chosen rows of some targets."""
_SMALL: Final = 2.0**-40
"""The share of its length below which a row adds nothing to those that were chosen before."""

Take = Callable[["NDArray[np.int64]"], "Array"]
"""Returns rows with the given numbers, in any float dtype."""


@dataclass(frozen=True)
class MatrixRows:
    """The rows of a matrix, which are read when they are needed.

    Attributes:
        count: how many there are.
        width: values of a row.
        take: returns some of them, shape (numbers, width).
    """

    count: int
    width: int
    take: Take

    def blocks(self, rows: int) -> Iterator[NDArray[np.int64]]:
        """Yield the numbers of all rows, at most ``rows`` at a time."""
        for start in range(0, self.count, rows):
            yield np.arange(start, min(start + rows, self.count))


@dataclass(frozen=True)
class Combination:
    """The targets ``start:stop`` as combinations.

    Attributes:
        start: the first target.
        stop: the number after the last target.
        numbers: the rows of the dictionary, shape (targets, terms).
        weights: their factors, float32 of the same shape; 0 for a row that adds nothing.  The kernels of a
            BLAS differ between processors in the last bits of a float64, and float32 leaves these out.
    """

    start: int
    stop: int
    numbers: NDArray[np.int64]
    weights: NDArray[np.float32]

    def sums(self, rows: Array) -> Array:
        """Return the combinations of ``rows``, shape (targets * terms, width), summed as float64.

        Each product and each sum is rounded by itself, so that the result is the same on any processor.
        """
        count, terms = self.numbers.shape
        parts = rows.reshape(count, terms, -1)
        total = np.zeros((count, parts.shape[2]))
        for term in range(terms):
            total += self.weights[:, term, None].astype(np.float64) * parts[:, term]
        return total


def combinations(targets: MatrixRows, rows: MatrixRows, terms: int) -> Iterator[Combination]:
    """Yield each of ``targets`` as a combination of ``terms`` of ``rows``.

    A combination has no more terms than there are rows, or columns.  Rows with a value that is not finite are
    in none; there are no combinations when no row is left.  Memory is bounded for any number of targets, and
    thousands of them share a reading of ``rows``.
    """
    usable = _finite(rows)
    terms = min(terms, len(usable), rows.width)
    if not terms:
        return
    chosen = MatrixRows(len(usable), rows.width, lambda numbers: rows.take(usable[numbers]))
    step = max(1, _ROOM // (8 * (2 * rows.width + _ROWS + terms * (terms + 2))))
    for some in targets.blocks(step):
        with one_thread, np.errstate(all="ignore"):
            pursued = _Pursued(targets.take(some).astype(np.float64), terms)
            for _ in range(terms):
                pursued.add(chosen)
            found = Combination(int(some[0]), int(some[-1]) + 1, usable[pursued.numbers], pursued.weights())
        yield found


def _finite(rows: MatrixRows) -> NDArray[np.int64]:
    """Return the numbers of the rows whose values are all finite."""
    kept = [some[np.isfinite(rows.take(some)).all(axis=1)] for some in rows.blocks(_ROWS)]
    return np.concatenate([np.zeros(0, np.int64), *kept])


class _Pursued:
    """Targets, the rows that were chosen for each so far, and what is left.

    The chosen rows ``A`` of a target are ``Q U``, with ``Q`` at right angles.  Only the inverse of ``U`` is
    kept: ``Q`` is a multiple of it in size, and ``A U^-1`` has the same effect when it is applied more than
    once (the corrected seminormal equations, Bjoerck 1987).
    """

    def __init__(self, left: Matrix, terms: int) -> None:
        self._left, self._term = left, 0
        self._inverses = np.zeros((len(left), terms, terms))
        self._shares = np.zeros((len(left), terms))
        self.numbers = np.zeros((len(left), terms), np.int64)

    def weights(self) -> NDArray[np.float32]:
        """Return the factors of the chosen rows."""
        return (self._inverses @ self._shares[:, :, None])[:, :, 0].astype(np.float32)

    def add(self, rows: MatrixRows) -> None:
        """Choose one row more for each target."""
        chosen, term = self.numbers, self._term
        chosen[:, term] = _nearest(self._left, rows, chosen[:, :term])
        step = max(1, _CHOSEN // (8 * rows.width * (term + 1)))
        for start in range(0, len(chosen), step):
            some = slice(start, start + step)
            numbers = chosen[some, : term + 1]
            taken = rows.take(numbers.reshape(-1)).astype(np.float64)
            self._subtract(some, taken.reshape(*numbers.shape, -1))
        self._term += 1

    def _subtract(self, some: slice, taken: Matrix) -> None:
        """Subtract from what is left what the last row of ``taken`` adds to the others."""
        term, inverses, left = self._term, self._inverses[some], self._left[some]
        before, last = taken[:, :term], taken[:, term]
        inner, rest, shares = inverses[:, :term, :term], last[:, :, None], np.zeros((len(taken), term, 1))
        for _ in range(3):  # more than once, so that rounding leaves nothing of the others in it
            found = inner.mT @ (before @ rest)
            rest = rest - before.mT @ (inner @ found)
            shares += found
        new = rest[:, :, 0]
        norms = np.linalg.norm(new, axis=1)
        is_new = norms > _SMALL * np.linalg.norm(last, axis=1)
        scales = np.where(is_new, 1 / np.where(is_new, norms, 1), 0)
        new = new * scales[:, None]
        self._shares[some, term] = products = np.einsum("nw,nw->n", new, left)
        left -= products[:, None] * new
        inverses[:, :term, term] = -(inner @ shares)[:, :, 0] * scales[:, None]
        inverses[:, term, term] = scales


def _nearest(left: Matrix, rows: MatrixRows, taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each target the row with the largest inner product, the first of several equal ones."""
    best, found = np.full(len(left), -1.0), np.zeros(len(left), np.int64)
    for some in rows.blocks(_ROWS):
        scores = left @ rows.take(some).astype(np.float64).T
        np.abs(scores, out=scores)
        np.nan_to_num(scores, copy=False, nan=-1.0)  # of infinities: one would hide the rest of the block
        places = taken - some[0]
        targets, terms = np.nonzero((places >= 0) & (places < len(some)))
        scores[targets, places[targets, terms]] = -1
        here = scores.argmax(axis=1)
        values = scores[np.arange(len(left)), here]
        better = values > best
        best[better], found[better] = values[better], here[better] + some[0]
    return found
