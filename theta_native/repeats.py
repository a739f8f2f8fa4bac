"""Signs of long repetitions in data, at any distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Groups = NDArray[np.uint64]

_ODD = np.uint64(0x9E3779B97F4A7C15)


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


def marks(groups: Groups, one_in: int) -> Groups:
    """Fingerprints of the runs of four groups that begin with a chosen one.

    About one group in ``one_in`` (a power of two, at least 2) is chosen, by a hash of its
    content, so that equal runs are chosen together.  At most a quarter of all are returned.
    """
    out = np.empty(max(groups.size // 4, 1), np.uint64)
    shift = np.uint64(64 - (one_in.bit_length() - 1))
    return out[: _marks(groups, shift, out)]
