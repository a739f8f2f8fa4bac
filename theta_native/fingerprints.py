"""Fingerprints of rows, to find those that two matrices share, and of long repetitions at any distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theta_native import SMALL, kernel

Groups = NDArray[np.uint64]

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


@kernel
def _marks(groups: Groups, shift: np.uint64, out: Groups) -> int:
    count = 0
    for i in range(groups.size - 3):
        h = groups[i] * _ODD
        if h >> shift == 0 and count < out.size:
            for k in range(1, 4):
                h = (h + groups[i + k]) * _ODD
            out[count] = h
            count += 1
    return count


def _marks_by_numpy(groups: Groups, shift: np.uint64, count: int) -> Groups:
    if groups.size < 4:
        return groups[:0]
    first = groups[:-3] * _ODD
    places = np.flatnonzero(first >> shift == 0)[:count]
    found = first[places]
    for k in range(1, 4):
        found = (found + groups[places + k]) * _ODD
    return found


def _marks_by_kernel(groups: Groups, shift: np.uint64, count: int) -> Groups:
    out = np.empty(count, np.uint64)
    return out[: _marks(groups, shift, out)]


def marks(groups: Groups, one_in: int) -> Groups:
    """Return fingerprints of runs of four groups that start with a selected group.

    A hash of its content selects about one group in ``one_in`` (a power of two, at least 2), so that equal
    runs are selected together.  The result has at most a quarter of the number of groups.
    """
    shift = np.uint64(64 - (one_in.bit_length() - 1))
    find = _marks_by_numpy if groups.size <= SMALL else _marks_by_kernel
    return find(groups, shift, max(groups.size // 4, 1))
