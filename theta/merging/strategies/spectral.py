"""Methods that use the SVD of the differences: ``iso_c`` and ``tsv_m``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from theta._blas import one_thread
from theta.merging.strategies import shared
from theta.merging.strategies.method import Block, Job, Method

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Matrix = NDArray[np.float64]


class _Spectral(Method):
    parameters = (shared.LAMBDA,)
    needs_base = True
    symmetric = True

    def whole(self, job: Job) -> bool:
        """Return whether the tensor is a matrix, whose SVD needs all of it."""
        return len(job.shape) == 2

    def merge(self, job: Job, block: Block, stats: Any) -> Array:
        """Return the base plus the merged difference, or the mean difference if it is no matrix."""
        if len(job.shape) != 2:
            mixed = shared.combined(block.deltas, [1 / job.count] * job.count)
        elif not all(np.isfinite(delta).all() for delta in block.deltas):
            raise shared.undefined(job, "a difference has NaN or infinity")
        else:
            with one_thread:
                found = self.mixed([delta.reshape(job.shape).astype(np.float64) for delta in block.deltas])
            mixed = found.reshape(-1).astype(job.wide)
        out: Array = block.base + mixed * job.wide.type(job["lambda"])
        return out

    def mixed(self, deltas: list[Matrix]) -> Matrix:
        """Return the merged difference."""
        raise NotImplementedError


class IsoC(_Spectral):
    """``U S V^T`` of the sum of the differences, with all singular values set to their mean."""

    name = "iso_c"
    summary = "the sum of the differences with equal singular values"

    def mixed(self, deltas: list[Matrix]) -> Matrix:
        """Return the polar factor of the sum times its mean singular value."""
        u, s, v = np.linalg.svd(sum(deltas[1:], start=deltas[0]), full_matrices=False)
        found: Matrix = float(s.mean()) * (u @ v)
        return found


class TsvM(_Spectral):
    """The top ``max(r / N, 1)`` singular triplets of each difference, orthogonalised together."""

    name = "tsv_m"
    summary = "the leading singular vectors of each difference, made orthogonal"

    def mixed(self, deltas: list[Matrix]) -> Matrix:
        """Multiply the polar factors of all left and right vectors with the singular values."""
        parts = [np.linalg.svd(delta, full_matrices=False) for delta in deltas]
        kept = max(min(deltas[0].shape) // len(deltas), 1)
        left = _polar(np.concatenate([u[:, :kept] for u, _, _ in parts], axis=1))
        right = _polar(np.concatenate([v[:kept] for _, _, v in parts], axis=0))
        values = np.concatenate([s[:kept] for _, s, _ in parts])
        found: Matrix = (left * values) @ right
        return found


def _polar(matrix: Matrix) -> Matrix:
    """Return the nearest matrix with orthonormal rows or columns."""
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    found: Matrix = u @ v
    return found
