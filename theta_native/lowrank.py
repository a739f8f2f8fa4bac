"""Least squares for low-rank factors, in a fixed order of additions.

A BLAS may add in another order for another number of threads, and the encoded bytes would
differ; these kernels do not.  Decoding needs none of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Matrix = NDArray[np.float64]
"""A C-contiguous float64 matrix."""


@kernel
def _multiply(a: Matrix, b: Matrix, out: Matrix) -> None:
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            x = a[i, k]
            for j in range(b.shape[1]):
                out[i, j] += x * b[k, j]


@kernel
def _multiply_transposed(a: Matrix, b: Matrix, out: Matrix) -> None:
    for k in range(a.shape[0]):
        for i in range(a.shape[1]):
            x = a[k, i]
            for j in range(b.shape[1]):
                out[i, j] += x * b[k, j]


@kernel
def _orthonormalise(columns: Matrix, tolerance: float) -> int:
    # Rows of `columns` are the vectors: Gram-Schmidt, each vector projected twice.
    kept = 0
    for i in range(columns.shape[0]):
        before = 0.0
        for j in range(columns.shape[1]):
            before += columns[i, j] * columns[i, j]
        for _ in range(2):
            for k in range(kept):
                dot = 0.0
                for j in range(columns.shape[1]):
                    dot += columns[i, j] * columns[k, j]
                for j in range(columns.shape[1]):
                    columns[i, j] -= dot * columns[k, j]
        after = 0.0
        for j in range(columns.shape[1]):
            after += columns[i, j] * columns[i, j]
        if after > tolerance * before:
            length = np.sqrt(after)
            for j in range(columns.shape[1]):
                columns[kept, j] = columns[i, j] / length
            kept += 1
    return kept


@kernel
def _jacobi(a: Matrix, vectors: Matrix, sweeps: int) -> None:
    n = a.shape[0]
    for _ in range(sweeps):
        for p in range(n - 1):
            for q in range(p + 1, n):
                if abs(a[p, q]) <= 1e-15 * np.sqrt(abs(a[p, p] * a[q, q])):
                    continue
                theta = (a[q, q] - a[p, p]) / (2.0 * a[p, q])
                t = (1.0 if theta >= 0 else -1.0) / (abs(theta) + np.sqrt(theta * theta + 1.0))
                c = 1.0 / np.sqrt(t * t + 1.0)
                s = t * c
                for k in range(n):
                    x, y = a[k, p], a[k, q]
                    a[k, p], a[k, q] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = a[p, k], a[q, k]
                    a[p, k], a[q, k] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = vectors[p, k], vectors[q, k]
                    vectors[p, k], vectors[q, k] = c * x - s * y, s * x + c * y


@kernel
def _tridiagonalise(a: Matrix, diagonal: NDArray[np.float64], beside: NDArray[np.float64]) -> None:
    # Householder reflections of a symmetric matrix (Golub and Van Loan, algorithm 8.3.1).
    n = a.shape[0]
    v, p = np.zeros(n), np.zeros(n)
    for k in range(n - 2):
        norm = 0.0
        for i in range(k + 1, n):
            v[i] = a[k, i]
            norm += v[i] * v[i]
        norm = np.sqrt(norm)
        diagonal[k] = a[k, k]
        beside[k] = -norm if v[k + 1] >= 0 else norm
        v[k + 1] -= beside[k]
        length = 0.0
        for i in range(k + 1, n):
            length += v[i] * v[i]
        if length == 0.0:
            continue
        dot = 0.0
        for i in range(k + 1, n):
            total = 0.0
            for j in range(k + 1, n):
                total += a[i, j] * v[j]
            p[i] = 2.0 * total / length
            dot += p[i] * v[i]
        dot /= length
        for i in range(k + 1, n):
            p[i] -= dot * v[i]
        for i in range(k + 1, n):
            x, y = v[i], p[i]
            for j in range(k + 1, n):
                a[i, j] -= x * p[j] + y * v[j]
    for k in range(max(n - 2, 0), n):
        diagonal[k] = a[k, k]
    if n > 1:
        beside[n - 2] = a[n - 2, n - 1]


@kernel
def _count_below(diagonal: NDArray[np.float64], beside: NDArray[np.float64], x: float) -> int:
    # The number of eigenvalues below x: the signs of a Sturm sequence.
    count, q = 0, 1.0
    for i in range(diagonal.size):
        off = beside[i - 1] * beside[i - 1] if i else 0.0
        q = diagonal[i] - x - off / (q if abs(q) > 1e-300 else 1e-300)
        count += 1 if q < 0 else 0
    return count


@kernel
def _bisect(
    diagonal: NDArray[np.float64], beside: NDArray[np.float64], high: float, out: NDArray[np.float64]
) -> None:
    for k in range(out.size):
        low, top = 0.0, high
        for _ in range(48):
            middle = (low + top) / 2
            if _count_below(diagonal, beside, middle) <= diagonal.size - 1 - k:
                low = middle
            else:
                top = middle
        out[k] = (low + top) / 2
        high = top


@kernel
def _solve(a: Matrix, b: NDArray[np.float64]) -> None:
    # Cholesky with a little ridge; `b` becomes the solution.
    n = b.size
    ridge = 0.0
    for i in range(n):
        ridge += a[i, i]
    ridge = ridge / n * 1e-13 + 1e-300
    for i in range(n):
        for j in range(i + 1):
            total = a[i, j] + (ridge if i == j else 0.0)
            for k in range(j):
                total -= a[i, k] * a[j, k]
            a[i, j] = np.sqrt(max(total, 1e-300)) if i == j else total / a[j, j]
    for i in range(n):
        for k in range(i):
            b[i] -= a[i, k] * b[k]
        b[i] /= a[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= a[k, i] * b[k]
        b[i] /= a[i, i]


@kernel
def _weighted(d: Matrix, w: Matrix, v: Matrix, out: Matrix) -> None:
    r = v.shape[1]
    a = np.empty((r, r))
    for i in range(d.shape[0]):
        a[:] = 0.0
        out[i, :] = 0.0
        for j in range(d.shape[1]):
            weight = w[i, j]
            x = weight * d[i, j]
            for p in range(r):
                out[i, p] += x * v[j, p]
                y = weight * v[j, p]
                for q in range(p + 1):
                    a[p, q] += y * v[j, q]
        _solve(a, out[i])


def multiply(a: Matrix, b: Matrix) -> Matrix:
    """``a @ b``."""
    out = np.zeros((a.shape[0], b.shape[1]))
    _multiply(a, b, out)
    return out


def multiply_transposed(a: Matrix, b: Matrix) -> Matrix:
    """``a.T @ b``."""
    out = np.zeros((a.shape[1], b.shape[1]))
    _multiply_transposed(a, b, out)
    return out


def orthonormal(columns: Matrix) -> Matrix:
    """An orthonormal basis, as columns, of the space of the columns given."""
    rows = np.ascontiguousarray(columns.T)
    kept = _orthonormalise(rows, 1e-20)
    return np.ascontiguousarray(rows[:kept].T)


def eigen(symmetric: Matrix) -> tuple[NDArray[np.float64], Matrix]:
    """Eigenvalues, the largest first, and eigenvectors as columns (cyclic Jacobi rotations)."""
    a, vectors = symmetric.copy(), np.eye(symmetric.shape[0])
    _jacobi(a, vectors, 12)
    order = np.argsort(-np.diag(a), kind="stable")
    return np.diag(a)[order].copy(), np.ascontiguousarray(vectors[order].T)


def largest_eigenvalues(symmetric: Matrix, count: int) -> NDArray[np.float64]:
    """The ``count`` largest eigenvalues of a positive semidefinite matrix, the largest first.

    To about 1e-14 of their sum: Householder reflections, then bisection.
    """
    n = symmetric.shape[0]
    diagonal, beside, out = np.zeros(n), np.zeros(n), np.zeros(min(count, n))
    _tridiagonalise(symmetric.copy(), diagonal, beside)
    _bisect(diagonal, beside, float(np.trace(symmetric)) * 1.0001, out)
    return out


def weighted_rows(d: Matrix, w: Matrix, v: Matrix) -> Matrix:
    """The ``u`` that minimises ``sum(w * (d - u @ v.T)**2)``: shape (rows of d, columns of v)."""
    out = np.empty((d.shape[0], v.shape[1]))
    _weighted(d, w, v, out)
    return out
