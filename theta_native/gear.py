"""The gear hash for content-defined cut points, specified in ``theta/formats/opaque.py``."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, Final

import numpy as np

from theta_native import kernel

WINDOW: Final = 64

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_Words = np.ndarray[Any, np.dtype[np.uint64]]


@cache
def table() -> _Words:
    """Return the gear of each byte ``b``: the first 8 bytes of SHA-256 of ``theta gear`` and ``b``, LE."""
    rows = (hashlib.sha256(b"theta gear" + bytes([value])).digest()[:8] for value in range(256))
    return np.frombuffer(b"".join(rows), dtype="<u8").astype(np.uint64)


def find(data: bytes, threshold: int) -> int:
    """Return the index of the first byte, from 63 on, whose gear hash is below ``threshold``; -1 if none.

    Raises ``ValueError`` unless ``threshold`` is an unsigned 64-bit number.
    """
    if not 0 <= threshold < 2**64:
        raise ValueError("the threshold has more than 64 bits")
    return int(_find(np.frombuffer(data, dtype=np.uint8), table(), np.uint64(threshold)))


@kernel
def _find(data: _Bytes, gear: _Words, threshold: np.uint64) -> int:
    state = np.uint64(0)
    one = np.uint64(1)
    for index in range(data.size):
        # The shift drops the byte before the window, so nothing has to be subtracted.
        state = (state << one) + gear[data[index]]
        if index >= WINDOW - 1 and state < threshold:
            return index
    return -1
