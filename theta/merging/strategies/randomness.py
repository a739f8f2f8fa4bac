"""Counter-based random numbers: that of an element does not depend on the order of computation.

The key is SHA-256 of the seed, the strategy, the tensor's name and the model's number.  The number of
element ``i`` is the SplitMix64 output for ``key + (i + 1) * golden`` (Steele, Lea, Flood 2014), so threads
share no state.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def key(seed: int, strategy: str, tensor: str, model: int) -> int:
    """Return the key of a stream."""
    text = f"theta randomness 1\0{seed}\0{strategy}\0{tensor}\0{model}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")


def bits(stream: int, start: int, stop: int) -> NDArray[np.uint64]:
    """Return 64 random bits for each of the elements ``start:stop``."""
    state = np.arange(start + 1, stop + 1, dtype=np.uint64)
    state *= _GOLDEN
    state += np.uint64(stream)
    state ^= state >> np.uint64(30)
    state *= _FIRST
    state ^= state >> np.uint64(27)
    state *= _SECOND
    state ^= state >> np.uint64(31)
    return state


def below(stream: int, start: int, stop: int, chance: Any) -> NDArray[np.bool_]:
    """Return Bernoulli draws: whether a uniform number of 53 bits is below ``chance``.

    ``chance`` is one probability, or an array with one for each element.
    """
    uniform = (bits(stream, start, stop) >> np.uint64(11)).astype(np.float64)
    uniform *= 2.0**-53
    found: NDArray[np.bool_] = uniform < chance
    return found
