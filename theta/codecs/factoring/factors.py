"""Thin factors whose product is added to a matrix: whole numbers, so that the product is exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from theta._blas import one_thread
from theta._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Factor = NDArray[np.int64]

MAX_RANK: Final = 256
_LARGEST_SCALE: Final = 400
_SPLIT_BITS: Final = 14
_EXACT: Final = 1 << 53


def has_room(rank: int, rows: int, columns: int) -> bool:
    """Return whether a layer may have factors of this rank: no more numbers than the matrix has."""
    return 1 <= rank <= MAX_RANK and rank * (rows + columns) <= rows * columns


@dataclass(frozen=True)
class Factors:
    """Integer factors ``u`` (m, r) and ``v`` (n, r); their product is scaled by ``2**scale``."""

    u: Factor
    v: Factor
    scale: int

    @property
    def is_storable(self) -> bool:
        """Whether a layer may hold them; a reader refuses what is not."""
        rows, rank = self.u.shape
        return has_room(rank, rows, self.v.shape[0]) and abs(self.scale) <= _LARGEST_SCALE and self.is_exact()

    def is_exact(self) -> bool:
        """Return whether the product can be computed as the format demands."""
        rank, most_u, most_v = int(self.u.shape[1]), _largest(self.u), _largest(self.v)
        if rank * most_u * most_v < _EXACT:
            return True
        high = (most_u >> _SPLIT_BITS) + 1
        return bool(rank * max(high, 1 << _SPLIT_BITS) * most_v < _EXACT)

    def product(self, rows: slice, columns: slice) -> Matrix:
        """Return a part of ``u @ v.T * 2**scale``, the same on every machine."""
        v = self._columns[:, columns]
        with one_thread:  # what the product is would not change, but threads would wait for each other
            first, *rest = (part[rows] @ v for part in self._rows)
        for low in rest:
            first *= float(1 << _SPLIT_BITS)
            first += low
        return first

    @cached_property
    def _rows(self) -> list[Matrix]:
        """``u``, scaled; as its high and low bits when a product with all of them would round."""
        parts = [self.u]
        if self.u.shape[1] * _largest(self.u) * _largest(self.v) >= _EXACT:
            high = self.u >> _SPLIT_BITS
            parts = [high, self.u - (high << _SPLIT_BITS)]
        return [part.astype(np.float64) * 2.0**self.scale for part in parts]

    @cached_property
    def _columns(self) -> Matrix:
        """The transpose of ``v``."""
        found: Matrix = np.ascontiguousarray(self.v.T.astype(np.float64))
        return found


def _largest(factor: Factor) -> int:
    return max(int(factor.max(initial=0)), -int(factor.min(initial=0)))


def unit(factor: NDArray[Any], bits: int) -> int:
    """Return the power of two in units of which the largest number of ``factor`` has ``bits`` bits."""
    return int(np.frexp(np.abs(factor).max() or 1.0)[1]) - (bits - 1)


def rounded(u: NDArray[Any], v: NDArray[Any], bits: int) -> Factors:
    """Round to integer factors of ``bits`` bits, the sign included."""
    units = unit(u, bits), unit(v, bits)
    whole = [
        np.rint(np.ldexp(f.astype(np.float64), -k)).astype(np.int64)
        for f, k in zip((u, v), units, strict=True)
    ]
    return Factors(whole[0], whole[1], sum(units))
