"""Thin factors whose product is added to a matrix: whole numbers, so that the product is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Factor = NDArray[np.int64]

_SPLIT_BITS: Final = 14
_EXACT: Final = 1 << 53


@dataclass(frozen=True)
class Factors:
    """Integer factors ``u`` (m, r) and ``v`` (n, r); their product is scaled by ``2**scale``."""

    u: Factor
    v: Factor
    scale: int

    def is_exact(self) -> bool:
        """Whether the product can be computed as the format demands."""
        rank, most_u, most_v = int(self.u.shape[1]), _largest(self.u), _largest(self.v)
        if rank * most_u * most_v < _EXACT:
            return True
        high = (most_u >> _SPLIT_BITS) + 1
        return bool(rank * max(high, 1 << _SPLIT_BITS) * most_v < _EXACT)

    def product(self, rows: slice, columns: slice) -> Matrix:
        """A part of ``u @ v.T * 2**scale``, the same on every machine."""
        u, v = self.u[rows], self.v[columns].astype(np.float64).T
        if self.u.shape[1] * _largest(self.u) * _largest(self.v) < _EXACT:
            total = u.astype(np.float64) @ v
        else:
            high = u >> _SPLIT_BITS
            low = u - (high << _SPLIT_BITS)
            total = (high.astype(np.float64) @ v) * float(1 << _SPLIT_BITS) + low.astype(np.float64) @ v
        return total * 2.0**self.scale


def _largest(factor: Factor) -> int:
    return max(int(factor.max(initial=0)), -int(factor.min(initial=0)))


def unit(factor: NDArray[Any], bits: int) -> int:
    """The power of two in units of which the largest number of ``factor`` has ``bits`` bits."""
    return int(np.frexp(np.abs(factor).max() or 1.0)[1]) - (bits - 1)


def rounded(u: NDArray[Any], v: NDArray[Any], bits: int) -> Factors:
    """Integer factors of ``bits`` bits, the sign included."""
    units = unit(u, bits), unit(v, bits)
    whole = [
        np.rint(np.ldexp(f.astype(np.float64), -k)).astype(np.int64)
        for f, k in zip((u, v), units, strict=True)
    ]
    return Factors(whole[0], whole[1], sum(units))
