"""How a conflict is settled: by taking a side, or by averaging.

Averages are ``alpha * ours + (1 - alpha) * theirs`` per element, accumulated in float32
(float64 for f64), rounded to nearest even into the dtype.  Elements with equal bits keep them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta.dtypes import DTYPES, numpy_dtype
from theta.errors import UsageError
from theta.merging.states import Conflict

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDES: Final = ("ours", "theirs", "base")


@dataclass(frozen=True)
class Strategy:
    """A decision for conflicts: the name of a side, or ``average`` with the weight of ours."""

    name: str
    alpha: float = 0.5

    def applies(self, conflict: Conflict) -> bool:
        """Whether this decision can settle ``conflict``."""
        if self.name in SIDES:
            return True
        return conflict.ours is not None and conflict.same_geometry and is_averaged(conflict.ours.dtype)

    def __str__(self) -> str:
        return self.name if self.name in SIDES else f"{self.name}:alpha={self.alpha:g}"


Policy = Callable[[Conflict], Strategy | None]
"""Decides a conflict, or leaves it one."""


def is_averaged(dtype: str) -> bool:
    """Whether an average means anything: never for integers, booleans, packed or opaque data."""
    return DTYPES[dtype].kind in ("float", "complex") and dtype != "f8_e8m0"


def parse(text: str) -> Strategy:
    """``ours``, ``theirs``, ``base``, ``average`` or ``average:alpha=0.3``; raises :class:`UsageError`."""
    name, _, options = text.partition(":")
    name = {"avg": "average", "linear": "average"}.get(name, name)
    if name in SIDES and not options:
        return Strategy(name)
    if name != "average":
        raise UsageError(
            f"unknown merge strategy {text!r}", hint="use ours, theirs, base or average[:alpha=0.5]"
        )
    alpha = 0.5
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key != "alpha":
            raise UsageError(f"average has no option {key!r}")
        alpha = _weight(value)
    return Strategy("average", alpha)


def _weight(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is a number from 0 to 1, not {text!r}")
    return alpha


def average(ours: bytes | memoryview, theirs: bytes | memoryview, dtype: str, alpha: float) -> bytes:
    """The average of two chunks of raw little-endian values of ``dtype``.

    Equal bits stay (so merging x with x gives x, NaN payloads and all), and a weight of 0 or 1
    gives that side's bits.
    """
    import numpy as np

    kind = numpy_dtype("f32" if dtype == "c64" else dtype)  # a complex number is two floats
    words = f"<u{kind.itemsize}"
    left, right = np.frombuffer(ours, words), np.frombuffer(theirs, words)
    if alpha in (0.0, 1.0):
        return bytes(ours if alpha == 1.0 else theirs)
    wide = np.float64 if dtype == "f64" else np.float32
    one: NDArray[Any] = left.view(kind).astype(wide)
    other: NDArray[Any] = right.view(kind).astype(wide)
    with np.errstate(all="ignore"):
        mixed = (one * wide(alpha) + other * wide(1 - alpha)).astype(kind)
    return np.where(left == right, left, mixed.view(words)).astype(words).tobytes()
