"""Strategies for conflicts: take a side, or compute the result by a method.

A method is a subclass of :class:`~theta.merging.strategies.method.Method`, which
:mod:`~theta.merging.strategies.registry` finds by name.  A :class:`Strategy` is the name of a method with
parameters.  Plug-ins need :class:`Method`, :class:`Parameter`, :class:`Job` and :class:`Block`.
"""

from __future__ import annotations

from theta.merging.strategies.method import BLOCK, Block, Job, Method
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

__all__ = [
    "BLOCK",
    "SIDES",
    "Block",
    "Info",
    "Job",
    "Method",
    "Parameter",
    "Policy",
    "Strategy",
    "broken_plugins",
    "describe",
    "is_averaged",
    "make",
    "names",
    "parse",
]
