"""Merging adapters as PEFT's ``add_weighted_adapter`` does: the eleven types, on the factors of one module.

With ``s_i`` the scale (alpha over rank) and ``w_i`` the weight of adapter i, ``B_i A_i`` its product:

``cat``
    ``A = [w_1 s_1 A_1; w_2 s_2 A_2; ...]``, ``B = [B_1, B_2, ...]``: exactly ``sum(w_i s_i B_i A_i)``.
``svd``
    the best approximation of that sum with the wanted rank (Eckart and Young, 1936).
``linear``
    ``A = sum(sign(w_i s_i) sqrt(|w_i s_i|) A_i)``, ``B = sum(sqrt(|w_i s_i|) B_i)``: a rough one.
``magnitude_prune``, ``ties`` (2306.01708), ``dare_linear``, ``dare_ties`` (2311.03099)
    as ``linear``, on factors that are thinned out to ``density`` (the largest, or at random and divided by
    it); for the two of ties, elements of another sign than the sum are left out, and the rest is averaged.
``magnitude_prune_svd``, ``ties_svd``, ``dare_linear_svd``, ``dare_ties_svd``
    the same on the products ``s_i B_i A_i``, weighted by ``w_i``, and then the SVD.

The formulas are those of peft 0.21 (``tuners/lora/model.py``, ``utils/merge_utils.py``), computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta._blas import one_thread
from theta._numpy import np
from theta.errors import ThetaError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Thin = Callable[[Matrix, int], Matrix]

SVD: Final = "_svd"


@dataclass(frozen=True)
class ModuleFactors:
    """The factors of one module in one adapter: A (r, in), B (out, r), the scale of their product."""

    a: Matrix
    b: Matrix
    scale: float


@dataclass(frozen=True)
class Mixture:
    """How adapters are merged.

    Attributes:
        kind: one of :data:`theta.merging.strategies.of_factors.TYPES`.
        weights: the weight of each adapter.
        density: the share of the elements that is kept.
        by_count: elect signs by their number and not by their sum.
        drawn: returns for the number of an adapter and of a factor, and a count, the elements to keep.
    """

    kind: str
    weights: Sequence[float]
    density: float = 1.0
    by_count: bool = False
    drawn: Callable[[int, int, int], NDArray[np.bool_]] | None = None

    @property
    def takes_rank(self) -> bool:
        """Whether the result may have any rank."""
        return self.kind == "svd" or self.kind.endswith(SVD)

    def factors(self, found: Sequence[ModuleFactors], rank: int) -> tuple[Matrix, Matrix]:
        """Return A and B of ``rank`` rows and columns, whose product has a scale of one.

        Raises :class:`ThetaError` for factors of ranks that have no sum.
        """
        with one_thread, np.errstate(all="ignore"):
            if self.kind == "cat":
                return _filled(*self._side_by_side(found), rank)
            if self.kind == "svd":
                return _filled(*_shortened(*self._side_by_side(found), rank), rank)
            if self.takes_rank:
                products = [one.scale * one.b @ one.a for one in found]
                return _filled(*_decomposed(self._mixed(products, self.weights, 0), rank), rank)
            return self._by_factor(found)

    def _side_by_side(self, found: Sequence[ModuleFactors]) -> tuple[Matrix, Matrix]:
        scaled = [one.a * (by * one.scale) for one, by in zip(found, self.weights, strict=True)]
        return np.vstack(scaled), np.hstack([one.b for one in found])

    def _by_factor(self, found: Sequence[ModuleFactors]) -> tuple[Matrix, Matrix]:
        if len({one.a.shape[0] for one in found}) > 1:
            ranks = ", ".join(str(one.a.shape[0]) for one in found)
            raise UsageError(
                f"{self.kind} needs factors of one rank, not {ranks}", hint="svd takes any ranks"
            )
        both = [by * one.scale for one, by in zip(found, self.weights, strict=True)]
        roots = [abs(value) ** 0.5 for value in both]
        signed = [-root if value < 0 else root for root, value in zip(roots, both, strict=True)]
        return self._mixed([one.a for one in found], signed, 0), self._mixed(
            [one.b for one in found], roots, 1
        )

    def _mixed(self, values: Sequence[Matrix], weights: Sequence[float], factor: int) -> Matrix:
        """Return the weighted sum of ``values`` after thinning them out, or their mean where signs agree."""
        name = self.kind.removesuffix(SVD)
        if name.startswith("dare"):
            values = [self._dropped(value, number, factor) for number, value in enumerate(values)]
        elif name in ("ties", "magnitude_prune"):
            values = [_largest(value, self.density) for value in values]
        weighted = [value * weight for value, weight in zip(values, weights, strict=True)]
        if not name.endswith("ties"):
            return _sum(weighted)
        signs = [np.sign(value) for value in values]
        elected = np.where(_sum(signs if self.by_count else values) >= 0, 1.0, -1.0)
        agree = [sign == elected for sign in signs]
        total = _sum([value * each for value, each in zip(weighted, agree, strict=True)])
        return total / np.maximum(_sum([each.astype(np.float64) for each in agree]), 1.0)

    def _dropped(self, value: Matrix, number: int, factor: int) -> Matrix:
        if self.density >= 1:
            return value
        if self.density <= 0 or self.drawn is None:
            raise ThetaError(f"{self.kind} divides by the density, which is {self.density:g}")
        kept = self.drawn(number, factor, value.size).reshape(value.shape)
        dropped: Matrix = np.where(kept, value / self.density, 0.0)
        return dropped


def _sum(values: Sequence[Matrix]) -> Matrix:
    total = values[0].copy()
    for value in values[1:]:
        total += value
    return total


def _largest(value: Matrix, density: float) -> Matrix:
    """Return ``value`` with only the share ``density`` of its elements, those of the largest magnitude."""
    count = int(density * value.size)
    if density >= 1:
        return value
    order = np.argsort(-np.abs(value).reshape(-1), kind="stable")[:count]
    kept = np.zeros(value.size)
    kept[order] = value.reshape(-1)[order]
    return kept.reshape(value.shape)


def _decomposed(value: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """Return A and B of the largest ``rank`` singular values, all in B as PEFT has them."""
    if not np.isfinite(value).all():
        raise ThetaError("a product has NaN or infinity and no singular values")
    u, s, v = np.linalg.svd(value, full_matrices=False)
    return v[:rank], u[:, :rank] * s[:rank]


def _shortened(a: Matrix, b: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """Return the same of ``b @ a``, from triangles of its factors: no matrix of its size is decomposed."""
    if a.shape[0] >= min(a.shape[1], b.shape[0]):
        return _decomposed(b @ a, rank)
    left, upper = np.linalg.qr(b)
    right, lower = np.linalg.qr(a.T)
    v, u = _decomposed(upper @ lower.T, rank)
    return v @ right.T, left @ u


def _filled(a: Matrix, b: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """Return factors with zeros up to ``rank``."""
    more = max(rank - a.shape[0], 0)
    return np.pad(a, ((0, more), (0, 0))), np.pad(b, ((0, 0), (0, more)))


def norm(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the Frobenius norm of ``b @ a``, from the Gram matrices of the factors."""
    left, right = b.T.astype(np.float64) @ b, a.astype(np.float64) @ a.T
    return float(max(np.sum(left * right), 0.0) ** 0.5)
