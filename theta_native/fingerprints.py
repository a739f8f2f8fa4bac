"""Fingerprints of rows, to find those that two matrices share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

_ODD = np.uint64(0x9E3779B97F4A7C15)


@kernel
def _fingerprints(rows: NDArray[np.uint8], out: NDArray[np.uint64]) -> None:
    for i in range(rows.shape[0]):
        h = np.uint64(rows.shape[1])
        whole = rows.shape[1] & ~7
        for j in range(0, whole, 8):
            word = np.uint64(0)
            for k in range(8):
                word |= np.uint64(rows[i, j + k]) << np.uint64(8 * k)
            h = (h ^ word) * _ODD
            h ^= h >> np.uint64(29)
        for j in range(whole, rows.shape[1]):
            h = (h ^ np.uint64(rows[i, j])) * _ODD
            h ^= h >> np.uint64(29)
        out[i] = h


def fingerprints(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a 64-bit fingerprint of each contiguous row of bytes; equal rows have equal fingerprints.

    They are not collision-resistant: rows with equal fingerprints must be compared.
    """
    out = np.empty(rows.shape[0], np.uint64)
    _fingerprints(rows, out)
    return out
