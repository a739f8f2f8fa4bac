"""How a conflict is settled: by taking a side, or by a method that computes.

A method is a module's class (:class:`~theta.merging.strategies.method.Method`), found by name in
:mod:`~theta.merging.strategies.registry`; a :class:`Strategy` is a method's name with parameters.
Plug-ins need :class:`Method`, :class:`Parameter`, :class:`Job` and :class:`Block`.
"""

from __future__ import annotations

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

__all__ = [
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
