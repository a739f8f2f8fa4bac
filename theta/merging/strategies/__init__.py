"""How a conflict is settled: by taking a side, or by a method that computes.

A method is a module's class (:class:`~theta.merging.strategies.method.Method`), found by name in
:mod:`~theta.merging.strategies.registry`; a :class:`Strategy` is a method's name with parameters.
Plug-ins need :class:`Method`, :class:`Parameter`, :class:`Job` and :class:`Block`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.parameters import Parameter
from theta.merging.strategies.registry import broken_plugins, names
from theta.merging.strategies.strategy import (
    SIDES,
    Info,
    Policy,
    Strategy,
    describe,
    is_averaged,
    make,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "SIDES",
    "Block",
    "Info",
    "Job",
    "Method",
    "Parameter",
    "Policy",
    "Strategy",
    "average",
    "broken_plugins",
    "describe",
    "is_averaged",
    "make",
    "names",
    "parse",
]


def average(ours: bytes | memoryview, theirs: bytes | memoryview, dtype: str, alpha: float) -> bytes:
    """``alpha * ours + (1 - alpha) * theirs`` of raw little-endian values of ``dtype``.

    Equal bits stay (so x with x is x, NaN payloads and all), and a weight of 0 or 1 gives that
    side's bits.
    """
    import numpy as np

    from theta.merging.strategies import run
    from theta.merging.strategies.numbers import word_type

    sides: Sequence[np.ndarray] = [np.frombuffer(raw, word_type(dtype)) for raw in (ours, theirs)]
    shape = (sides[0].size // (2 if dtype == "c64" else 1),)
    strategy = make("average", {"alpha": float(alpha)})
    return run.arrays(strategy, sides, dtype=dtype, shape=shape, allow_nan=True).tobytes()
