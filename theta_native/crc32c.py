"""CRC-32C (Castagnoli, RFC 3720 section 12.1), which TensorFlow's files use.

Each step processes eight bytes ("slicing by eight", Kounavis and Berry 2005).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

_POLYNOMIAL = 0x82F63B78
_SMALL = 1 << 12
"""The number of bytes up to which Python is fast enough, so that numba is not imported."""


@cache
def _tables() -> NDArray[np.uint32]:
    """Return the CRC of each byte followed by 0 to 7 zero bytes, shape ``(8, 256)``."""
    tables = np.empty((8, 256), np.uint32)
    value = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        value = np.where(value & 1, value >> 1 ^ np.uint32(_POLYNOMIAL), value >> 1).astype(np.uint32)
    tables[0] = value
    for k in range(1, 8):
        tables[k] = tables[0][tables[k - 1] & 0xFF] ^ tables[k - 1] >> 8
    return tables


@kernel
def _update(data: NDArray[np.uint8], value: np.uint32, tables: NDArray[np.uint32]) -> np.uint32:
    whole = data.size & ~7
    for i in range(0, whole, 8):
        low = value ^ (
            np.uint32(data[i])
            | np.uint32(data[i + 1]) << np.uint32(8)
            | np.uint32(data[i + 2]) << np.uint32(16)
            | np.uint32(data[i + 3]) << np.uint32(24)
        )
        value = (
            tables[7, low & np.uint32(0xFF)]
            ^ tables[6, low >> np.uint32(8) & np.uint32(0xFF)]
            ^ tables[5, low >> np.uint32(16) & np.uint32(0xFF)]
            ^ tables[4, low >> np.uint32(24)]
            ^ tables[3, data[i + 4]]
            ^ tables[2, data[i + 5]]
            ^ tables[1, data[i + 6]]
            ^ tables[0, data[i + 7]]
        )
    for i in range(whole, data.size):
        value = tables[0, (value ^ np.uint32(data[i])) & np.uint32(0xFF)] ^ value >> np.uint32(8)
    return np.uint32(value)


def crc32c(data: bytes | memoryview, value: int = 0) -> int:
    """Return the CRC-32C of ``data``, continued from ``value`` as in :func:`zlib.crc32`."""
    if len(data) > _SMALL:
        words = np.frombuffer(data, np.uint8)
        return int(_update(words, np.uint32(value ^ 0xFFFFFFFF), _tables())) ^ 0xFFFFFFFF
    table = _tables()[0].tolist()
    value ^= 0xFFFFFFFF
    for byte in bytes(data):
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
