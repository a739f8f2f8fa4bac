"""The linear algebra with a fixed order of additions, against numpy."""

import numpy as np
import pytest

from theta_native import least_squares as kernels
from theta_native.fingerprints import fingerprints


def matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (rows, columns))


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (40, 60, 20)])
def test_products(shape: tuple[int, int, int]) -> None:
    a, b = matrix(shape[0], shape[1]), matrix(shape[1], shape[2], 1)
    np.testing.assert_allclose(kernels.multiply(a, b), a @ b, atol=1e-12)
    np.testing.assert_allclose(kernels.multiply_transposed(np.ascontiguousarray(a.T), b), a @ b, atol=1e-12)


def test_orthonormal_basis_drops_dependent_columns() -> None:
    a = matrix(50, 6)
    a[:, 3] = a[:, 0] + a[:, 1]
    q = kernels.orthonormal(a)
    assert q.shape == (50, 5)
    np.testing.assert_allclose(q.T @ q, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(q @ (q.T @ a), a, atol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 30])
def test_eigenvalues(size: int) -> None:
    a = matrix(size, size)
    a = a @ a.T
    values, vectors = kernels.eigen(a)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(a)[::-1], atol=1e-9)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, a, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_largest_eigenvalues(size: int) -> None:
    a = matrix(size, size)
    a = a @ a.T
    expected = np.linalg.eigvalsh(a)[::-1][:20]
    np.testing.assert_allclose(kernels.largest_eigenvalues(a, 20), expected, atol=1e-12 * np.trace(a))
    assert not kernels.largest_eigenvalues(np.zeros((size, size)), 3).any()


def test_weighted_least_squares() -> None:
    d, w, v = matrix(6, 40), matrix(6, 40, 1) ** 2 + 0.1, matrix(40, 3, 2)
    found = kernels.weighted_rows(d, w, v)
    for i in range(6):
        root = np.sqrt(w[i])
        expected = np.linalg.lstsq(v * root[:, None], d[i] * root, rcond=None)[0]
        np.testing.assert_allclose(found[i], expected, atol=1e-9)


@pytest.mark.parametrize("length", [0, 1, 8, 13, 64])
def test_fingerprints(length: int) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (200, length), np.uint8)
    marks = fingerprints(np.concatenate([rows, rows]))
    assert marks[:200].tolist() == marks[200:].tolist()
    distinct = len({row.tobytes() for row in rows})
    assert np.unique(marks).size == distinct
    for mark, row in list(zip(marks.tolist(), rows, strict=False))[:20]:
        assert mark == twin_fingerprint(row.tobytes())


def twin_fingerprint(row: bytes) -> int:
    h, mask = len(row), 2**64 - 1
    whole = len(row) & ~7
    words = [int.from_bytes(row[k : k + 8], "little") for k in range(0, whole, 8)] + list(row[whole:])
    for word in words:
        h = (h ^ word) * 0x9E3779B97F4A7C15 & mask
        h ^= h >> 29
    return h
