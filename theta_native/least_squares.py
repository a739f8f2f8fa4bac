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
        # By rows throughout, which are columns too: so the compiler makes vectors of it.
        rest, into = v[k + 1 :], p[k + 1 :]
        into[:] = 0.0
        for i in range(k + 1, n):
            x, row = 2.0 * v[i] / length, a[i, k + 1 :]
            for j in range(row.size):
                into[j] += x * row[j]
        dot = 0.0
        for j in range(rest.size):
            dot += into[j] * rest[j]
        dot /= length
        for j in range(rest.size):
            into[j] -= dot * rest[j]
        for i in range(k + 1, n):
            x, y, row = v[i], p[i], a[i, k + 1 :]
            for j in range(row.size):
                row[j] -= x * into[j] + y * rest[j]
    for k in range(max(n - 2, 0), n):
        diagonal[k] = a[k, k]
    if n > 1:
        beside[n - 2] = a[n - 2, n - 1]


@kernel
def _diagonalise(d: NDArray[np.float64], e: NDArray[np.float64]) -> None:
    # Implicit QL steps without vectors (EISPACK's imtql1; Golub and Van Loan, algorithm 8.3.3).
    n = d.size
    for low in range(n):
        for _ in range(60):
            high = low
            while high < n - 1 and abs(e[high]) > 2.3e-16 * (abs(d[high]) + abs(d[high + 1])):
                high += 1
            if high == low:
                break
            g = (d[low + 1] - d[low]) / (2.0 * e[low])
            r = np.sqrt(g * g + 1.0)
            g = d[high] - d[low] + e[low] / (g + (r if g >= 0 else -r))
            s, c, p, split = 1.0, 1.0, 0.0, False
            for i in range(high - 1, low - 1, -1):
                f, b = s * e[i], c * e[i]
                r = np.sqrt(f * f + g * g)
                e[i + 1] = r
                if r == 0.0:
                    d[i + 1] -= p
                    split = True
                    break
                s, c = f / r, g / r
                g = d[i + 1] - p
                r = (d[i] - g) * s + 2.0 * c * b
                p = s * r
                d[i + 1] = g + p
                g = c * r - b
            if not split:
                d[low] -= p
                e[low] = g
            e[high] = 0.0


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

    To about 1e-14 of their sum: Householder reflections, then implicit QL steps.
    """
    n = symmetric.shape[0]
    diagonal, beside = np.zeros(n), np.zeros(n)
    _tridiagonalise(symmetric.copy(), diagonal, beside)
    _diagonalise(diagonal, beside)
    return np.maximum(np.sort(diagonal)[::-1][:count], 0.0)


def weighted_rows(d: Matrix, w: Matrix, v: Matrix) -> Matrix:
    """The ``u`` that minimises ``sum(w * (d - u @ v.T)**2)``: shape (rows of d, columns of v)."""
    out = np.empty((d.shape[0], v.shape[1]))
    _weighted(d, w, v, out)
    return out
